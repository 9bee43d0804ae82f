/* Preloaded into a process of the container: what only a whole machine could do otherwise.
 *
 * Clocks: CLOCK_REALTIME and CLOCK_BOOTTIME read as the kernel's plus an offset, so that a clock can be set, or a
 * machine seem to have slept, without touching the clock of the machine that runs the test.
 *
 * A process that ends at a step: the n-th time this process touches the victim (pidfd_open, opening or reading a file
 * of /proc/PID, reading a link there) the victim is killed for real, and reaped, just before. Step 0: nobody.
 *
 * The file named by GPUWHYD_SHIM is mapped; shim.py writes it, at any time. Only the thread that reads /proc touches a
 * victim, so the counter needs no lock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t realtime_offset_seconds;
    int64_t boottime_offset_seconds;
    int32_t victim;
    int32_t step;
};

static const struct control *control;
static int counted_victim, touched, victim_descriptor = -1;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_open)(const char *, int, ...);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_readlink)(const char *, char *, size_t);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void loaded(void)
{
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_read = dlsym(RTLD_NEXT, "read");
    real_readlink = dlsym(RTLD_NEXT, "readlink");
    real_syscall = dlsym(RTLD_NEXT, "syscall");
    const char *path = getenv("GPUWHYD_SHIM");
    int descriptor = path ? real_open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    void *mapping = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapping != MAP_FAILED)
        control = mapping;
}

/* One more step on the victim; true when this is the one it does not live to see. */
static void touch(void)
{
    int victim = control->victim;
    if (victim != counted_victim) {
        counted_victim = victim;
        touched = 0;
    }
    if (++touched != control->step)
        return;
    int before = errno;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", victim);
    kill(victim, SIGKILL);
    while (access(path, F_OK) == 0)
        usleep(1000);
    errno = before;
}

static int is_of_victim(const char *path)
{
    char folder[32];
    if (!control || !control->step)
        return 0;
    int length = snprintf(folder, sizeof folder, "/proc/%d/", control->victim);
    return strncmp(path, folder, (size_t)length) == 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!real_clock_gettime) /* asked by another library's constructor, before ours */
        real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, now);
    if (result == 0 && control) {
        if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
            now->tv_sec += control->realtime_offset_seconds;
        else if (clock == CLOCK_BOOTTIME)
            now->tv_sec += control->boottime_offset_seconds;
    }
    return result;
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (!real_open)
        real_open = dlsym(RTLD_NEXT, "open64");
    int of_victim = is_of_victim(path);
    if (of_victim)
        touch();
    int descriptor = real_open(path, flags, mode);
    if (of_victim)
        victim_descriptor = descriptor;
    return descriptor;
}

ssize_t read(int descriptor, void *target, size_t size)
{
    if (!real_read)
        real_read = dlsym(RTLD_NEXT, "read");
    if (descriptor >= 0 && descriptor == victim_descriptor) {
        victim_descriptor = -1;
        touch();
    }
    return real_read(descriptor, target, size);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    if (!real_readlink)
        real_readlink = dlsym(RTLD_NEXT, "readlink");
    if (is_of_victim(path))
        touch();
    return real_readlink(path, target, size);
}

long syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int index = 0; index < 6; index++)
        a[index] = va_arg(arguments, long);
    va_end(arguments);
    if (!real_syscall)
        real_syscall = dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_pidfd_open && control && control->step && a[0] == control->victim)
        touch();
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
