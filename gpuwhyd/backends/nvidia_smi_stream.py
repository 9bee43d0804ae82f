"""The endless output of `nvidia-smi -q -x -l`, cut into documents. Pure."""

DOCUMENT_LIMIT_BYTES = 8 << 20
"""One card takes 10 to 50 KB, most of it its list of clocks."""

_END = b"</nvidia_smi_log>"


class DocumentError(ValueError):
    """No document of nvidia-smi's; says why."""


class DocumentStream:
    """Cuts the endless output of `nvidia-smi -l` into documents. Keeps no more than one."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What has come after the last document."""
        return self._rest

    def feed(self, data: bytes) -> bytes | None:
        """The newest whole document in what has come so far, if one has come since. Raises DocumentError."""
        rest = self._rest + data
        end = rest.rfind(_END)
        if end < 0:
            if len(rest) > DOCUMENT_LIMIT_BYTES:
                self._rest = b""
                raise DocumentError("a document does not end")
            self._rest = rest
            return None
        end += len(_END)
        self._rest = rest[end:]
        before = rest.rfind(_END, 0, end - len(_END))
        document = rest[max(before, 0) : end]
        begin = document.rfind(b"<nvidia_smi_log")  # what was cut off before it goes with it
        return document[max(begin, 0) :]
