/* A fake AMD management library. What its cards are and which faults they have is in a file that control.py writes; this
 * library maps it and answers as the real one does. The functions written out here begin a line with FAKE( and their
 * name; all others that the wrapper binds decline (declined.h). Structures differ between releases: where their fields
 * are comes from the wrapper itself, through layout.h; a negative place is a field that this release does not have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"

enum { OK = 0, INVALID = 1, NOT_SUPPORTED = 2, OUT_OF_RESOURCES = 15, NOT_FOUND = 31, NOT_INITIALISED = 32 };

static struct fake_state *state;
static int initialised;
static char handles[8];

static struct fake_state *map_state(void)
{
    if (state)
        return state;
    char path[PATH_MAX];
    Dl_info self;
    if (!dladdr((void *)map_state, &self) || !realpath(self.dli_fname, path))
        return NULL;
    char *slash = strrchr(path, '/');
    snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "%s", FAKE_STATE_NAME);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    void *mapping = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapping == MAP_FAILED)
        return NULL;
    state = mapping;
    if (state->magic != FAKE_MAGIC || state->layout_version != FAKE_LAYOUT_VERSION)
        state = NULL;
    return state;
}

static void say(const char *what)
{
    if (state->prints)
        printf("libamd_smi says: %s\n", what);
}

__attribute__((constructor)) static void loaded(void)
{
    if (!map_state())
        return;
    __atomic_add_fetch(&state->loads, 1, __ATOMIC_SEQ_CST);
    say("loaded");
}

/* What happens in every function before its own work: counted, hung, refused. */
static unsigned enter(enum fake_function function)
{
    if (!map_state())
        return NOT_INITIALISED;
    __atomic_add_fetch(&state->calls[function], 1, __ATOMIC_SEQ_CST);
    while (state->hanging_function == (int)function)
        usleep(2000);
    return state->results[function];
}

static unsigned enter_card(enum fake_function function, void *handle, struct fake_card **card)
{
    unsigned refusal = enter(function);
    if (refusal)
        return refusal;
    if (!initialised)
        return NOT_INITIALISED;
    size_t index = (size_t)((char *)handle - handles);
    if (index >= state->card_count)
        return NOT_FOUND;
    *card = &state->cards[index];
    return (*card)->fails_with ? (*card)->fails_with : (*card)->results[function];
}

static void put(void *structure, int place, const void *value, size_t size)
{
    if (place >= 0)
        memcpy((char *)structure + place, value, size);
}

#define FAKE(name, ...) unsigned name(__VA_ARGS__)
#define DECLINED(name)                                                                                                 \
    unsigned name(void);                                                                                               \
    unsigned name(void)                                                                                                \
    {                                                                                                                  \
        unsigned refusal = enter(FN_##name);                                                                           \
        return refusal ? refusal : NOT_SUPPORTED;                                                                      \
    }

#include "declined.h"

FAKE(amdsmi_init, uint64_t flags)
{
    (void)flags;
    unsigned refusal = enter(FN_amdsmi_init);
    if (refusal)
        return refusal;
    if (state->crashes_at_init)
        abort();
    say("initialised");
    if (!initialised) {
        __atomic_add_fetch(&state->open_sessions, 1, __ATOMIC_SEQ_CST);
        for (unsigned index = 0; index < state->card_count; index++)
            __atomic_add_fetch(&state->cards[index].opened, 1, __ATOMIC_SEQ_CST);
    }
    initialised = 1;
    return OK;
}

FAKE(amdsmi_shut_down, void)
{
    unsigned refusal = enter(FN_amdsmi_shut_down);
    if (refusal)
        return refusal;
    say("shut down");
    if (initialised)
        __atomic_sub_fetch(&state->open_sessions, 1, __ATOMIC_SEQ_CST);
    initialised = 0;
    return OK;
}

FAKE(amdsmi_get_lib_version, void *version)
{
    unsigned refusal = enter(FN_amdsmi_get_lib_version);
    if (refusal)
        return refusal;
    if (state->version_needs_init && !initialised)
        return NOT_INITIALISED;
    static const char *build = "fake";
    memcpy(version, state->version, sizeof state->version);
    memcpy((char *)version + 16, &build, sizeof build);
    return OK;
}

FAKE(amdsmi_get_socket_handles, uint32_t *count, void **sockets)
{
    unsigned refusal = enter(FN_amdsmi_get_socket_handles);
    if (refusal)
        return refusal;
    if (!initialised)
        return NOT_INITIALISED;
    if (sockets)
        sockets[0] = &handles;
    *count = 1;
    return OK;
}

FAKE(amdsmi_get_processor_handles, void *socket, uint32_t *count, void **processors)
{
    (void)socket;
    unsigned refusal = enter(FN_amdsmi_get_processor_handles);
    if (refusal)
        return refusal;
    if (!initialised)
        return NOT_INITIALISED;
    for (unsigned index = 0; processors && index < state->card_count; index++)
        processors[index] = &handles[index];
    *count = state->card_count;
    return OK;
}

FAKE(amdsmi_get_gpu_device_bdf, void *handle, uint64_t *bdf)
{
    struct fake_card *card;
    unsigned refusal = enter_card(FN_amdsmi_get_gpu_device_bdf, handle, &card);
    if (!refusal)
        *bdf = card->bdf;
    return refusal;
}

FAKE(amdsmi_get_temp_metric, void *handle, uint32_t type, uint32_t metric, int64_t *celsius)
{
    struct fake_card *card;
    unsigned refusal = enter_card(FN_amdsmi_get_temp_metric, handle, &card);
    if (refusal)
        return refusal;
    if (type >= sizeof card->sensors / sizeof *card->sensors || metric != 0)
        return NOT_SUPPORTED;
    if (!card->sensors[type].result)
        *celsius = card->sensors[type].value;
    return card->sensors[type].result;
}

FAKE(amdsmi_get_energy_count, void *handle, uint64_t *count, float *unit, uint64_t *stamp)
{
    struct fake_card *card;
    unsigned refusal = enter_card(FN_amdsmi_get_energy_count, handle, &card);
    if (refusal)
        return refusal;
    *count = card->energy;
    *unit = card->energy_unit;
    *stamp = 1;
    return OK;
}

FAKE(amdsmi_get_gpu_metrics_info, void *handle, void *metrics)
{
    static const int places[FAKE_COUNTERS] = {METRICS_COUNTER_0, METRICS_COUNTER_1, METRICS_COUNTER_2,
                                              METRICS_COUNTER_3, METRICS_COUNTER_4, METRICS_COUNTER_5};
    struct fake_card *card;
    unsigned refusal = enter_card(FN_amdsmi_get_gpu_metrics_info, handle, &card);
    if (refusal)
        return refusal;
    memset(metrics, 0xff, METRICS_SIZE);
    uint16_t activity = (uint16_t)card->activity;
    put(metrics, METRICS_ACTIVITY, &activity, sizeof activity);
    for (int counter = 0; counter < FAKE_COUNTERS; counter++)
        put(metrics, places[counter], &card->counters[counter], sizeof card->counters[counter]);
    return OK;
}

FAKE(amdsmi_get_gpu_process_list, void *handle, uint32_t *count, char *list)
{
    struct fake_card *card;
    unsigned refusal = enter_card(FN_amdsmi_get_gpu_process_list, handle, &card);
    if (refusal)
        return refusal;
    uint32_t room = *count;
    *count = card->process_count;
    for (uint32_t place = 0; place < card->process_count && place < room; place++) {
        const struct fake_process *process = &card->processes[place];
        char *entry = list + place * PROCESS_SIZE;
        memset(entry, 0, PROCESS_SIZE);
        put(entry, PROCESS_NAME, process->name, strnlen(process->name, sizeof process->name));
        put(entry, PROCESS_PID, &process->pid, sizeof process->pid);
        put(entry, PROCESS_MEM, &process->memory, sizeof process->memory);
        put(entry, PROCESS_VRAM, &process->memory, sizeof process->memory);
        put(entry, PROCESS_GFX, &process->graphics_ns, sizeof process->graphics_ns);
        put(entry, PROCESS_ENC, &process->encoder_ns, sizeof process->encoder_ns);
        put(entry, PROCESS_UNITS, &process->occupied_units, sizeof process->occupied_units);
    }
    return card->process_count > room ? OUT_OF_RESOURCES : OK;
}
