"""Whatever nvidia-smi and rocm-smi write, a reading is plausible or the answer is refused."""

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from gpuwhyd.backends import nvidia_smi_sources, nvidia_smi_xml, rocm_smi_json, rocm_smi_sources
from gpuwhyd.backends.nvidia_smi_stream import DOCUMENT_LIMIT_BYTES, DocumentError, DocumentStream
from gpuwhyd.backends.program_answer import Told
from gpuwhyd.backends.rocm_smi_json import AnswerError
from gpuwhyd.model import FieldSource, GpuReading, GpuState
from tests.backends.nvidia_smi_documents import CARD, document, gpu, process
from tests.backends.test_rocm_smi import CARD as AMD_CARD
from tests.backends.test_rocm_smi import answer
from tests.fuzz.mutation import HOSTILE_TEXTS, damaged_bytes, examples
from tests.samples import SAMPLES

_TEXTS = st.one_of(
    st.sampled_from([text.replace("<", "").replace("&", "") for text in HOSTILE_TEXTS if "\0" not in text]),
    st.sampled_from(["N/A", "-1 C", "65535 %", "1" * 300 + " W", "0 %", "99999999999999 MiB", "C+G", "P99"]),
    st.from_regex(r"-?[0-9]{0,20}\.?[0-9]{0,12} ?(%|C|W|MHz|MiB|GiB)?", fullmatch=True),
)
DOCUMENTS = [
    document(gpu(), gpu({"processes": process(7) + process(8, "G", "N/A")}, address="00000000:02:00.0")),
    *([path.read_bytes() for path in sorted((SAMPLES / "nvidia-smi-xml").iterdir())] if SAMPLES else []),
]
ANSWERS = [
    answer(AMD_CARD, system={"PID7": "python3, 1, 4096, 0, 0"}),
    *([path.read_bytes() for path in sorted((SAMPLES / "rocm-smi-json").iterdir())] if SAMPLES else []),
]


@examples(250)
@given(
    damaged_bytes(
        DOCUMENTS, pieces=[b"<gpu id='0000:01:00.0'>", b"</gpu>", b"&a;", b"<!ENTITY", b"]]>", b" C<"]
    )
)
def test_a_damaged_document_reads_plausibly_or_not_at_all(data: bytes) -> None:
    _check(nvidia_smi_xml.cards, nvidia_smi_sources.sources_of, data)


@examples(100)
@given(st.dictionaries(st.sampled_from(sorted(CARD)), _TEXTS, max_size=12), _TEXTS, _TEXTS)
def test_hostile_values_in_a_sound_document_are_plausible_or_none(
    changes: dict[str, str], pid: str, memory: str
) -> None:
    changes = {path: text.encode(errors="ignore").decode() for path, text in changes.items()}
    changes.setdefault(
        "processes",
        process(pid.encode(errors="ignore").decode(), "C", memory.encode(errors="ignore").decode()),
    )
    _check(nvidia_smi_xml.cards, nvidia_smi_sources.sources_of, document(gpu(changes)))


@examples(60)
@given(st.lists(damaged_bytes(DOCUMENTS, most=1), min_size=1, max_size=4), st.integers(500, 60_000))
def test_a_damaged_stream_gives_documents_or_is_refused(pieces: list[bytes], step: int) -> None:
    stream, data = DocumentStream(), b"".join(pieces)
    for at in range(0, len(data), step):
        with suppress(DocumentError):
            document = stream.feed(data[at : at + step])
            assert document is None or document.endswith(b"</nvidia_smi_log>")
        assert len(stream.rest) <= DOCUMENT_LIMIT_BYTES


@examples(250)
@given(
    damaged_bytes(
        ANSWERS, pieces=[b'"PCI Bus": "0000:07:00.0",', b"{", b"}", b"NaN", b"\\u0000", b'"PID1": "a']
    )
)
def test_a_damaged_answer_reads_plausibly_or_not_at_all(data: bytes) -> None:
    _check(rocm_smi_json.cards, rocm_smi_sources.sources_of, data)


@examples(100)
@given(st.dictionaries(st.sampled_from(sorted(AMD_CARD)), _TEXTS, max_size=12), _TEXTS)
def test_hostile_values_in_a_sound_answer_are_plausible_or_none(
    changes: dict[str, str], process: str
) -> None:
    _check(
        rocm_smi_json.cards,
        rocm_smi_sources.sources_of,
        answer({**AMD_CARD, **changes}, system={"PID7": f"x, 1, {process}, 0, 0"}),
    )


def _check(
    parse: Callable[[bytes], tuple[Told, ...]],
    sources_of: Callable[[Told], tuple[FieldSource, ...]],
    data: bytes,
) -> None:
    try:
        found = parse(data)
    except (DocumentError, AnswerError):
        return
    for told in found:
        check(told.reading)
        if told.reading.state is GpuState.AWAKE:
            check_sources(told.reading, sources_of(told))


def check_sources(reading: GpuReading, sources: tuple[FieldSource, ...]) -> None:
    for source in sources:
        assert (source.lack is None) is (getattr(reading, source.quantity) is not None)
        assert source.source
        assert source.advice.isprintable()
        assert len(source.advice) < 120


def check(reading: GpuReading) -> None:
    gpu = reading.gpu
    assert gpu.id.isascii()
    assert all(
        text is None or text.isprintable() for text in (gpu.name, gpu.uuid, gpu.driver, gpu.vbios_version)
    )
    assert 0 < len(gpu.name) <= 130
    for celsius in (reading.temperature_celsius, reading.memory_temperature_celsius, reading.hotspot_celsius):
        assert celsius is None or -50 <= celsius <= 200
    assert reading.temperature_limit_celsius is None or 40 <= reading.temperature_limit_celsius <= 150
    for watts in (reading.power_watts, reading.power_average_watts, reading.power_limit_watts):
        assert watts is None or 0 <= watts <= 10_000
    for percent in (
        reading.utilization_percent,
        reading.memory_utilization_percent,
        reading.encoder_percent,
        reading.decoder_percent,
    ):
        assert percent is None or 0 <= percent <= 100
    assert (reading.memory_used_bytes is None) is (reading.memory_total_bytes is None)
    if reading.memory_used_bytes is not None and reading.memory_total_bytes is not None:
        assert 0 <= reading.memory_used_bytes <= reading.memory_total_bytes < 1 << 51
    for fan in reading.fans:
        assert fan.percent is None or 0 <= fan.percent <= 1000
        assert fan.rpm is None or 0 <= fan.rpm <= 30_000
    for name in reading.throttle_reasons or ():
        assert name.isprintable()
    for use in reading.processes or ():
        assert 0 < use.pid < 1 << 22
        assert use.memory_used_bytes is None or 0 <= use.memory_used_bytes < 1 << 50
