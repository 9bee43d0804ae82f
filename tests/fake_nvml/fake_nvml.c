/* A fake NVIDIA management library. What its cards are and which faults they have is in a file that control.py
 * writes; this library maps it and answers as the real one does, two-call protocols and version checks included.
 * Every function it has begins a line with FAKE, FAKE_CARD, FAKE_DEVICE or FAKE_NONE: control.py reads the names from
 * here. What it answers to MIG handles and in MIG mode is what nvml.h says and what people saw on an A100 and an H100:
 * no utilisation of any kind, aggregates (memory, process lists) of the whole card for the privileged only. */
#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <nvml.h>

#include "layout.h"

/* The ABI that nvidia-ml-py is written for: size, and version word where the caller must send one. */
#define ABI(type, size) _Static_assert(sizeof(type) == (size), #type)
#define ABI_VERSION(type, word, version) _Static_assert((unsigned)(word) == (version), #type " version")
ABI(nvmlPciInfo_t, 68);
ABI(nvmlPciInfoExt_v1_t, 64);
ABI_VERSION(nvmlPciInfoExt_v1_t, nvmlPciInfoExt_v1, 0x1000040u);
ABI(nvmlMemory_t, 24);
ABI(nvmlMemory_v2_t, 40);
ABI_VERSION(nvmlMemory_v2_t, nvmlMemory_v2, 0x2000028u);
ABI(nvmlUtilization_t, 8);
ABI(nvmlProcessInfo_v1_t, 16);
ABI(nvmlProcessInfo_v2_t, 24);
ABI(nvmlProcessInfo_t, 24);
ABI(nvmlProcessUtilizationSample_t, 32);
ABI(nvmlProcessUtilizationInfo_v1_t, 40);
ABI(nvmlProcessesUtilizationInfo_v1_t, 24);
ABI_VERSION(nvmlProcessesUtilizationInfo_v1_t, nvmlProcessesUtilizationInfo_v1, 0x1000018u);
ABI(nvmlProcessDetail_v1_t, 32);
ABI(nvmlProcessDetailList_v1_t, 24);
ABI_VERSION(nvmlProcessDetailList_v1_t, nvmlProcessDetailList_v1, 0x1000018u);
ABI(nvmlFieldValue_t, 40);
ABI(nvmlSample_t, 16);
ABI(nvmlEventData_t, 32);
ABI(nvmlFanSpeedInfo_v1_t, 12);
ABI_VERSION(nvmlFanSpeedInfo_v1_t, nvmlFanSpeedInfo_v1, 0x100000cu);
ABI(nvmlTemperature_v1_t, 12);
ABI_VERSION(nvmlTemperature_v1_t, nvmlTemperature_v1, 0x100000cu);
ABI(nvmlMarginTemperature_v1_t, 8);
ABI_VERSION(nvmlMarginTemperature_v1_t, nvmlMarginTemperature_v1, 0x1000008u);
ABI(nvmlCoolerInfo_v1_t, 16);
ABI_VERSION(nvmlCoolerInfo_v1_t, nvmlCoolerInfo_v1, 0x1000010u);
ABI(nvmlAccountingStats_t, 56);
ABI(nvmlGpuThermalSettings_t, 64);

static struct fake_state *state;
static int writable;
static dev_t mapped_device;
static ino_t mapped_inode;
static char default_path[PATH_MAX];
static unsigned initialisations;
static int attached[FAKE_MAX_CARDS];
static char handles[FAKE_MAX_CARDS];
static char mig_handles[FAKE_MAX_CARDS][FAKE_MAX_INSTANCES];

static const char *state_path(void)
{
    const char *named = getenv(FAKE_STATE_VARIABLE);
    if (named && *named)
        return named;
    if (!*default_path) {
        Dl_info self;
        if (!dladdr((void *)state_path, &self) || !realpath(self.dli_fname, default_path))
            return "";
        char *slash = strrchr(default_path, '/');
        snprintf(slash + 1, sizeof default_path - (size_t)(slash + 1 - default_path), "%s", FAKE_STATE_NAME);
    }
    return default_path;
}

/* Maps the state file, anew when it was replaced; read-only where the sandbox allows no more. */
static struct fake_state *map_state(void)
{
    const char *path = state_path();
    struct stat status;
    if (stat(path, &status) != 0 || (size_t)status.st_size != sizeof(struct fake_state))
        return NULL;
    if (state && status.st_dev == mapped_device && status.st_ino == mapped_inode)
        return state;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    int may_write = descriptor >= 0;
    if (!may_write)
        descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    void *mapping = mmap(NULL, sizeof *state, may_write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapping == MAP_FAILED)
        return NULL;
    struct fake_state *mapped = mapping;
    if (mapped->magic != FAKE_MAGIC || mapped->layout_version != FAKE_LAYOUT_VERSION) {
        munmap(mapping, sizeof *state);
        return NULL;
    }
    if (state)
        munmap(state, sizeof *state);
    state = mapped;
    writable = may_write;
    mapped_device = status.st_dev;
    mapped_inode = status.st_ino;
    return state;
}

__attribute__((constructor)) static void loaded(void)
{
    if (map_state() && writable)
        __atomic_add_fetch(&state->loads, 1, __ATOMIC_SEQ_CST);
}

/* What happens in every function before its own work: counted, hung, refused. */
static nvmlReturn_t enter(enum fake_function function, int needs_initialisation)
{
    if (!map_state())
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (writable)
        __atomic_add_fetch(&state->calls[function], 1, __ATOMIC_SEQ_CST);
    if (state->hanging_function == (int)function) {
        if (writable)
            __atomic_add_fetch(&state->now_hanging, 1, __ATOMIC_SEQ_CST);
        for (int waited = 0; map_state() && state->hanging_function == (int)function; waited += 2) {
            if (state->hang_ms && waited >= state->hang_ms)
                break;
            usleep(2000);
        }
        if (map_state() && writable)
            __atomic_sub_fetch(&state->now_hanging, 1, __ATOMIC_SEQ_CST);
        if (!map_state())
            return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    if (state->results[function])
        return (nvmlReturn_t)state->results[function];
    if (needs_initialisation && !initialisations)
        return NVML_ERROR_UNINITIALIZED;
    if (!state->driver_loaded)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    return NVML_SUCCESS;
}

static int is_partitioned(const struct fake_card *card)
{
    return !card->sensors.mig_mode.result && card->sensors.mig_mode.value == NVML_DEVICE_MIG_ENABLE;
}

/* The card of a handle and, when it is the handle of a MIG device, that; a destroyed one's handle is invalid. */
static nvmlReturn_t enter_device(enum fake_function function, nvmlDevice_t device, struct fake_card **card,
                                 struct fake_instance **instance)
{
    nvmlReturn_t refusal = enter(function, 1);
    if (refusal)
        return refusal;
    *instance = NULL;
    for (unsigned index = 0; index < state->card_count; index++) {
        char *handle = (char *)device;
        *card = &state->cards[index];
        if (handle >= mig_handles[index] && handle < mig_handles[index] + FAKE_MAX_INSTANCES)
            *instance = &(*card)->instances[handle - mig_handles[index]];
        else if (handle != &handles[index])
            continue;
        if ((*card)->lost)
            return NVML_ERROR_GPU_IS_LOST;
        if (*instance && !(is_partitioned(*card) && (*instance)->exists))
            return NVML_ERROR_INVALID_ARGUMENT;
        return (nvmlReturn_t)(*card)->results[function];
    }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* Most functions take the handle of a whole card only. */
static nvmlReturn_t enter_card(enum fake_function function, nvmlDevice_t device, struct fake_card **card)
{
    struct fake_instance *instance;
    nvmlReturn_t refusal = enter_device(function, device, card, &instance);
    return !refusal && instance ? NVML_ERROR_INVALID_ARGUMENT : refusal;
}

/* Opening a card's device node: on a real machine this wakes it. */
static void attach(unsigned index)
{
    if (attached[index] || !writable)
        return;
    attached[index] = 1;
    __atomic_add_fetch(&state->cards[index].attached, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&state->cards[index].attach_count, 1, __ATOMIC_SEQ_CST);
}

static nvmlReturn_t copy_text(const char *text, char *target, unsigned length)
{
    if (!target)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(target, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

static nvmlReturn_t give(const struct fake_sensor *sensor, unsigned *target)
{
    if (sensor->result)
        return (nvmlReturn_t)sensor->result;
    if (!target)
        return NVML_ERROR_INVALID_ARGUMENT;
    *target = (unsigned)(long long)llround(sensor->value);
    return NVML_SUCCESS;
}

#define FAKE(name, ...) nvmlReturn_t name(__VA_ARGS__) { nvmlReturn_t refusal = enter(FN_##name, 1); if (refusal) return refusal;
#define FAKE_FIRST(name, ...) nvmlReturn_t name(__VA_ARGS__) { nvmlReturn_t refusal = enter(FN_##name, 0); if (refusal) return refusal;
/* Gives back what was taken, whether the driver is still there or not. */
#define FAKE_LAST(name, ...) nvmlReturn_t name(__VA_ARGS__) { nvmlReturn_t refusal = enter(FN_##name, 0); \
    if (refusal && refusal != NVML_ERROR_DRIVER_NOT_LOADED) return refusal;
#define FAKE_CARD(name, ...) nvmlReturn_t name(nvmlDevice_t device, ##__VA_ARGS__) { struct fake_card *card; \
    nvmlReturn_t refusal = enter_card(FN_##name, device, &card); if (refusal) return refusal;
/* Functions that take the handle of a MIG device too; `instance` is NULL for a whole card. */
#define FAKE_DEVICE(name, ...) nvmlReturn_t name(nvmlDevice_t device, ##__VA_ARGS__) { struct fake_card *card; \
    struct fake_instance *instance; nvmlReturn_t refusal = enter_device(FN_##name, device, &card, &instance); \
    if (refusal) return refusal;
/* Functions that exist and that no fake card supports. */
#define FAKE_NONE(name, ...) nvmlReturn_t name(nvmlDevice_t device, __VA_ARGS__) { struct fake_card *card; \
    nvmlReturn_t refusal = enter_card(FN_##name, device, &card); return refusal ? refusal : NVML_ERROR_NOT_SUPPORTED; }
#define END }
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* ---- library ---- */

FAKE_FIRST(nvmlInitWithFlags, unsigned int flags)
    if (state->checks_version && strcmp(state->driver_version, FAKE_LIBRARY_VERSION) != 0)
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    if (writable)
        state->last_init_flags = flags;
    initialisations++;
    if (!(flags & NVML_INIT_FLAG_NO_ATTACH))
        for (unsigned index = 0; index < state->card_count; index++)
            attach(index);
    return NVML_SUCCESS;
END

FAKE_FIRST(nvmlInit_v2, void)
    return nvmlInitWithFlags(0);
END

FAKE_LAST(nvmlShutdown, void)
    if (!initialisations)
        return NVML_ERROR_UNINITIALIZED;
    if (--initialisations)
        return NVML_SUCCESS;
    for (unsigned index = 0; index < FAKE_MAX_CARDS; index++) {
        if (attached[index] && state && writable)
            __atomic_sub_fetch(&state->cards[index].attached, 1, __ATOMIC_SEQ_CST);
        attached[index] = 0;
    }
    return NVML_SUCCESS;
END

const char *nvmlErrorString(nvmlReturn_t result)
{
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", (int)result);
    return text;
}

FAKE(nvmlSystemGetDriverVersion, char *version, unsigned int length)
    return copy_text(state->driver_version, version, length);
END

FAKE(nvmlSystemGetNVMLVersion, char *version, unsigned int length)
    return copy_text("12." FAKE_LIBRARY_VERSION, version, length);
END

FAKE(nvmlSystemGetCudaDriverVersion_v2, int *version)
    *version = 12040;
    return NVML_SUCCESS;
END

FAKE(nvmlSystemGetCudaDriverVersion, int *version)
    *version = 12040;
    return NVML_SUCCESS;
END

FAKE(nvmlDeviceGetCount_v2, unsigned int *count)
    *count = state->card_count;
    return NVML_SUCCESS;
END

static nvmlReturn_t open_card(enum fake_function function, unsigned index, nvmlDevice_t *device)
{
    if (index >= state->card_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    attach(index);
    if (state->cards[index].lost)
        return NVML_ERROR_GPU_IS_LOST;
    if (state->cards[index].results[function])
        return (nvmlReturn_t)state->cards[index].results[function];
    *device = (nvmlDevice_t)&handles[index];
    return NVML_SUCCESS;
}

FAKE(nvmlDeviceGetHandleByIndex_v2, unsigned int index, nvmlDevice_t *device)
    return open_card(FN_nvmlDeviceGetHandleByIndex_v2, index, device);
END

FAKE(nvmlDeviceGetHandleByUUID, const char *uuid, nvmlDevice_t *device)
    for (unsigned index = 0; index < state->card_count; index++)
        if (strcmp(state->cards[index].uuid, uuid) == 0)
            return open_card(FN_nvmlDeviceGetHandleByUUID, index, device);
    for (unsigned index = 0; index < state->card_count; index++)
        for (unsigned part = 0; is_partitioned(&state->cards[index]) && part < FAKE_MAX_INSTANCES; part++) {
            const struct fake_instance *instance = &state->cards[index].instances[part];
            if (!instance->exists || strcmp(instance->uuid, uuid) != 0)
                continue;
            nvmlReturn_t result = open_card(FN_nvmlDeviceGetHandleByUUID, index, device);
            if (!result)
                *device = (nvmlDevice_t)&mig_handles[index][part];
            return result;
        }
    return NVML_ERROR_NOT_FOUND;
END

static int same_address(const char *first, const char *second)
{
    unsigned a[4], b[4];
    return sscanf(first, "%x:%x:%x.%x", &a[0], &a[1], &a[2], &a[3]) == 4 &&
           sscanf(second, "%x:%x:%x.%x", &b[0], &b[1], &b[2], &b[3]) == 4 && memcmp(a, b, sizeof a) == 0;
}

FAKE(nvmlDeviceGetHandleByPciBusId_v2, const char *address, nvmlDevice_t *device)
    for (unsigned index = 0; index < state->card_count; index++)
        if (same_address(state->cards[index].pci_address, address))
            return open_card(FN_nvmlDeviceGetHandleByPciBusId_v2, index, device);
    return NVML_ERROR_NOT_FOUND;
END

/* ---- identity ---- */

FAKE_DEVICE(nvmlDeviceGetName, char *name, unsigned int length)
    if (!instance)
        return copy_text(card->name, name, length);
    char text[sizeof card->name + sizeof instance->profile + 8];
    snprintf(text, sizeof text, "%s MIG %s", card->name, instance->profile);
    return copy_text(text, name, length);
END

FAKE_DEVICE(nvmlDeviceGetUUID, char *uuid, unsigned int length)
    return copy_text(instance ? instance->uuid : card->uuid, uuid, length);
END

FAKE_DEVICE(nvmlDeviceGetIndex, unsigned int *index)
    *index = (unsigned)(instance ? instance - card->instances : card - state->cards);
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetBrand, nvmlBrandType_t *brand)
    *brand = strstr(card->name, "GeForce") ? NVML_BRAND_GEFORCE
             : strstr(card->name, "RTX")   ? NVML_BRAND_NVIDIA_RTX
                                           : NVML_BRAND_NVIDIA;
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetVirtualizationMode, nvmlGpuVirtualizationMode_t *mode)
    *mode = NVML_GPU_VIRTUALIZATION_MODE_NONE;
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetGridLicensableFeatures_v4, nvmlGridLicensableFeatures_t *features)
    memset(features, 0, sizeof *features);
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetCudaComputeCapability, int *major, int *minor)
    *major = 8;
    *minor = 6;
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetComputeMode, nvmlComputeMode_t *mode)
    *mode = NVML_COMPUTEMODE_DEFAULT;
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetMinorNumber, unsigned int *minor)
    *minor = (unsigned)(card - state->cards);
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetVbiosVersion, char *version, unsigned int length)
    return copy_text(card->vbios, version, length);
END

FAKE_CARD(nvmlDeviceGetPciInfo_v3, nvmlPciInfo_t *pci)
    unsigned part[4] = {0};
    sscanf(card->pci_address, "%x:%x:%x.%x", &part[0], &part[1], &part[2], &part[3]);
    memset(pci, 0, sizeof *pci);
    pci->domain = part[0];
    pci->bus = part[1];
    pci->device = part[2];
    pci->pciDeviceId = 0x248410deu;
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.%X", part[0], part[1], part[2], part[3]);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.%X", part[0] & 0xffff, part[1] & 0xff,
             part[2] & 0xff, part[3] & 0xf);
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetDisplayMode, nvmlEnableState_t *mode)
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.display_active, &value);
    *mode = (nvmlEnableState_t)value;
    return result;
END

FAKE_CARD(nvmlDeviceGetDisplayActive, nvmlEnableState_t *active)
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.display_active, &value);
    *active = (nvmlEnableState_t)value;
    return result;
END

FAKE_CARD(nvmlDeviceGetPersistenceMode, nvmlEnableState_t *mode)
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.persistence, &value);
    *mode = (nvmlEnableState_t)value;
    return result;
END

/* ---- MIG ---- */

FAKE_CARD(nvmlDeviceGetMigMode, unsigned int *current, unsigned int *pending)
    nvmlReturn_t result = give(&card->sensors.mig_mode, current);
    if (!result)
        *pending = *current;
    return result;
END

FAKE_CARD(nvmlDeviceGetMaxMigDeviceCount, unsigned int *count)
    *count = !is_partitioned(card) ? 0 : card->claimed_count ? card->claimed_count : FAKE_MAX_INSTANCES;
    return NVML_SUCCESS;
END

FAKE_CARD(nvmlDeviceGetMigDeviceHandleByIndex, unsigned int index, nvmlDevice_t *instance)
    if (!is_partitioned(card))
        return NVML_ERROR_NOT_SUPPORTED;
    if (index >= FAKE_MAX_INSTANCES && index >= card->claimed_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (index >= FAKE_MAX_INSTANCES || !card->instances[index].exists)
        return NVML_ERROR_NOT_FOUND;
    *instance = (nvmlDevice_t)&mig_handles[card - state->cards][index];
    return NVML_SUCCESS;
END

FAKE_DEVICE(nvmlDeviceIsMigDeviceHandle, unsigned int *is_instance)
    *is_instance = instance != NULL;
    return NVML_SUCCESS;
END

FAKE_DEVICE(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, nvmlDevice_t *parent)
    if (!instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    *parent = (nvmlDevice_t)&handles[card - state->cards];
    return NVML_SUCCESS;
END

FAKE_DEVICE(nvmlDeviceGetGpuInstanceId, unsigned int *id)
    if (!instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    *id = instance->gpu_instance;
    return NVML_SUCCESS;
END

FAKE_DEVICE(nvmlDeviceGetComputeInstanceId, unsigned int *id)
    if (!instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    *id = instance->compute_instance;
    return NVML_SUCCESS;
END

/* ---- fans ---- */

static struct fake_fan *fan_of(struct fake_card *card, unsigned index)
{
    unsigned number = 0;
    if (give(&card->sensors.number_of_fans, &number) || index >= number || index >= FAKE_MAX_FANS)
        return NULL;
    return &card->fans[index];
}

FAKE_CARD(nvmlDeviceGetNumFans, unsigned int *number)
    return give(&card->sensors.number_of_fans, number);
END

FAKE_CARD(nvmlDeviceGetFanSpeed, unsigned int *speed)
    struct fake_fan *fan = fan_of(card, 0);
    return fan ? give(&fan->percent, speed) : NVML_ERROR_NOT_SUPPORTED;
END

FAKE_CARD(nvmlDeviceGetFanSpeed_v2, unsigned int index, unsigned int *speed)
    struct fake_fan *fan = fan_of(card, index);
    return fan ? give(&fan->percent, speed) : NVML_ERROR_INVALID_ARGUMENT;
END

FAKE_CARD(nvmlDeviceGetFanSpeedRPM, nvmlFanSpeedInfo_t *info)
    if (info->version != nvmlFanSpeedInfo_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    struct fake_fan *fan = fan_of(card, info->fan);
    return fan ? give(&fan->rpm, &info->speed) : NVML_ERROR_INVALID_ARGUMENT;
END

FAKE_CARD(nvmlDeviceGetTargetFanSpeed, unsigned int index, unsigned int *speed)
    struct fake_fan *fan = fan_of(card, index);
    return fan ? give(&fan->target, speed) : NVML_ERROR_INVALID_ARGUMENT;
END

FAKE_CARD(nvmlDeviceGetFanControlPolicy_v2, unsigned int index, nvmlFanControlPolicy_t *policy)
    struct fake_fan *fan = fan_of(card, index);
    return fan ? give(&fan->policy, policy) : NVML_ERROR_INVALID_ARGUMENT;
END

FAKE_CARD(nvmlDeviceGetMinMaxFanSpeed, unsigned int *minimum, unsigned int *maximum)
    nvmlReturn_t result = give(&card->sensors.fan_minimum, minimum);
    return result ? result : give(&card->sensors.fan_maximum, maximum);
END

/* ---- heat and power ---- */

FAKE_CARD(nvmlDeviceGetTemperature, nvmlTemperatureSensors_t sensor, unsigned int *temperature)
    return sensor == NVML_TEMPERATURE_GPU ? give(&card->sensors.temperature, temperature) : NVML_ERROR_NOT_SUPPORTED;
END

FAKE_CARD(nvmlDeviceGetTemperatureV, nvmlTemperature_t *temperature)
    if (temperature->version != nvmlTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.temperature, &value);
    temperature->temperature = (int)value;
    return result;
END

FAKE_CARD(nvmlDeviceGetTemperatureThreshold, nvmlTemperatureThresholds_t kind, unsigned int *temperature)
    switch (kind) {
    case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN: return give(&card->sensors.threshold_shutdown, temperature);
    case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: return give(&card->sensors.threshold_slowdown, temperature);
    case NVML_TEMPERATURE_THRESHOLD_GPU_MAX: return give(&card->sensors.threshold_gpu_max, temperature);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
END

FAKE_CARD(nvmlDeviceGetMarginTemperature, nvmlMarginTemperature_t *margin)
    if (margin->version != nvmlMarginTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.margin_temperature, &value);
    margin->marginTemperature = (int)value;
    return result;
END

FAKE_CARD(nvmlDeviceGetPowerUsage, unsigned int *power)
    return give(&card->sensors.power_usage_mw, power);
END

FAKE_CARD(nvmlDeviceGetEnforcedPowerLimit, unsigned int *limit)
    return give(&card->sensors.power_limit_mw, limit);
END

FAKE_CARD(nvmlDeviceGetPowerManagementLimit, unsigned int *limit)
    return give(&card->sensors.power_limit_mw, limit);
END

FAKE_CARD(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int *limit)
    return give(&card->sensors.power_limit_mw, limit);
END

FAKE_CARD(nvmlDeviceGetTotalEnergyConsumption, unsigned long long *energy)
    if (card->sensors.energy_mj.result)
        return (nvmlReturn_t)card->sensors.energy_mj.result;
    *energy = (unsigned long long)card->sensors.energy_mj.value;
    return NVML_SUCCESS;
END

static void field(const struct fake_sensor *sensor, nvmlValueType_t type, nvmlFieldValue_t *value)
{
    value->nvmlReturn = (nvmlReturn_t)sensor->result;
    value->valueType = type;
    value->timestamp = 1;
    if (sensor->result)
        return;
    if (type == NVML_VALUE_TYPE_DOUBLE)
        value->value.dVal = sensor->value;
    else if (type == NVML_VALUE_TYPE_UNSIGNED_LONG_LONG)
        value->value.ullVal = (unsigned long long)sensor->value;
    else if (type == NVML_VALUE_TYPE_SIGNED_INT)
        value->value.siVal = (int)sensor->value;
    else
        value->value.uiVal = (unsigned)(long long)sensor->value;
}

FAKE_CARD(nvmlDeviceGetFieldValues, int count, nvmlFieldValue_t *values)
    for (nvmlFieldValue_t *value = values; value < values + count; value++) {
        const struct fake_sensors *sensors = &card->sensors;
        if (value->fieldId == NVML_FI_DEV_MEMORY_TEMP)
            field(&sensors->memory_temperature, NVML_VALUE_TYPE_UNSIGNED_INT, value);
        else if (value->fieldId == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)
            field(&sensors->energy_mj, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, value);
        else if (value->fieldId == NVML_FI_DEV_POWER_AVERAGE && value->scopeId == 0)
            field(&sensors->power_average_mw, NVML_VALUE_TYPE_UNSIGNED_INT, value);
        else if (value->fieldId == NVML_FI_DEV_POWER_INSTANT && value->scopeId == 0)
            field(&sensors->power_instant_mw, NVML_VALUE_TYPE_UNSIGNED_INT, value);
        else if (value->fieldId == NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT)
            field(&sensors->tlimit_slowdown, NVML_VALUE_TYPE_SIGNED_INT, value);
        else
            value->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    }
    return NVML_SUCCESS;
END

/* ---- load ---- */

FAKE_DEVICE(nvmlDeviceGetUtilizationRates, nvmlUtilization_t *utilization)
    if (is_partitioned(card))
        return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t result = give(&card->sensors.utilization, &utilization->gpu);
    return result ? result : give(&card->sensors.memory_utilization, &utilization->memory);
END

FAKE_DEVICE(nvmlDeviceGetEncoderUtilization, unsigned int *utilization, unsigned int *period)
    if (is_partitioned(card))
        return NVML_ERROR_NOT_SUPPORTED;
    *period = 200000;
    return give(&card->sensors.encoder, utilization);
END

FAKE_DEVICE(nvmlDeviceGetDecoderUtilization, unsigned int *utilization, unsigned int *period)
    if (is_partitioned(card))
        return NVML_ERROR_NOT_SUPPORTED;
    *period = 200000;
    return give(&card->sensors.decoder, utilization);
END

FAKE_CARD(nvmlDeviceGetPerformanceState, nvmlPstates_t *pstate)
    unsigned value = 0;
    nvmlReturn_t result = give(&card->sensors.pstate, &value);
    *pstate = (nvmlPstates_t)value;
    return result;
END

static nvmlReturn_t reasons(struct fake_card *card, unsigned long long *bits)
{
    if (card->sensors.throttle_reasons.result)
        return (nvmlReturn_t)card->sensors.throttle_reasons.result;
    *bits = (unsigned long long)card->sensors.throttle_reasons.value;
    return NVML_SUCCESS;
}

FAKE_CARD(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long *bits)
    return reasons(card, bits);
END

FAKE_CARD(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long *bits)
    return reasons(card, bits);
END

FAKE_CARD(nvmlDeviceGetClockInfo, nvmlClockType_t type, unsigned int *clock)
    return give(type == NVML_CLOCK_MEM ? &card->sensors.memory_clock : &card->sensors.core_clock, clock);
END

FAKE_CARD(nvmlDeviceGetMaxClockInfo, nvmlClockType_t type, unsigned int *clock)
    return give(type == NVML_CLOCK_MEM ? &card->sensors.max_memory_clock : &card->sensors.max_core_clock, clock);
END

/* What is known of the whole of a partitioned card is for the privileged only. */
static nvmlReturn_t aggregate(const struct fake_card *card)
{
    return is_partitioned(card) ? (nvmlReturn_t)card->aggregate_result : NVML_SUCCESS;
}

FAKE_DEVICE(nvmlDeviceGetMemoryInfo, nvmlMemory_t *memory)
    if (instance) {
        memory->total = instance->memory_total;
        memory->used = instance->memory_used;
        memory->free = memory->total - memory->used;
        return (nvmlReturn_t)instance->result;
    }
    if (aggregate(card))
        return aggregate(card);
    const struct fake_sensors *sensors = &card->sensors;
    if (sensors->memory_total.result)
        return (nvmlReturn_t)sensors->memory_total.result;
    memory->total = (unsigned long long)sensors->memory_total.value;
    memory->used = (unsigned long long)(sensors->memory_used.value + sensors->memory_reserved.value);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
END

FAKE_DEVICE(nvmlDeviceGetMemoryInfo_v2, nvmlMemory_v2_t *memory)
    const struct fake_sensors *sensors = &card->sensors;
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (instance) {
        memory->total = instance->memory_total;
        memory->reserved = 0;
        memory->used = instance->memory_used;
        memory->free = memory->total - memory->used;
        return (nvmlReturn_t)instance->result;
    }
    if (aggregate(card))
        return aggregate(card);
    if (sensors->memory_total.result)
        return (nvmlReturn_t)sensors->memory_total.result;
    memory->total = (unsigned long long)sensors->memory_total.value;
    memory->reserved = (unsigned long long)sensors->memory_reserved.value;
    memory->used = (unsigned long long)sensors->memory_used.value;
    memory->free = memory->total - memory->used - memory->reserved;
    return NVML_SUCCESS;
END

/* 256 MiB as on most desktops; a MIG device's was five eighths of its memory. */
FAKE_DEVICE(nvmlDeviceGetBAR1MemoryInfo, nvmlBAR1Memory_t *memory)
    memory->bar1Total = instance ? instance->memory_total / 8 * 5 : 256ull << 20;
    memory->bar1Used = instance ? 0 : 5ull << 20;
    memory->bar1Free = memory->bar1Total - memory->bar1Used;
    return NVML_SUCCESS;
END

/* ---- processes ---- */

#define PROCESSES offsetof(struct fake_card, samples)
#define PROCESSES_AND_SAMPLES sizeof(struct fake_card)

/* A copy of the card, up to and with its processes or its samples, that was not being written meanwhile. */
static void steady(struct fake_card *card, struct fake_card *copy, size_t size)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        uint32_t before = __atomic_load_n(&card->change, __ATOMIC_ACQUIRE);
        memcpy(copy, card, size);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&card->change, __ATOMIC_ACQUIRE))
            return;
        usleep(100);
    }
}

static nvmlReturn_t list(struct fake_card *card, const struct fake_instance *instance, unsigned kind, unsigned *count,
                         void *infos, size_t size)
{
    if (instance ? (nvmlReturn_t)instance->result : aggregate(card))
        return instance ? (nvmlReturn_t)instance->result : aggregate(card);
    if (card->claimed_count) {
        *count = card->claimed_count;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    struct fake_card copy;
    steady(card, &copy, PROCESSES);
    unsigned found = 0, room = *count, place = instance ? (unsigned)(instance - card->instances) + 1 : 0;
    for (unsigned i = 0; i < copy.process_count; i++) {
        const struct fake_process *process = &copy.processes[i];
        if (!(process->kinds & kind) || (instance && process->instance != place))
            continue;
        if (infos && found < room) {
            const struct fake_instance *within = process->instance ? &copy.instances[process->instance - 1] : NULL;
            nvmlProcessInfo_t info = {process->pid, process->memory, within ? within->gpu_instance : UINT_MAX,
                                      within ? within->compute_instance : UINT_MAX};
            if (within && !instance && copy.aggregate_hides_memory)
                info.usedGpuMemory = (unsigned long long)NVML_VALUE_NOT_AVAILABLE;
            memcpy((char *)infos + found * size, &info, size);
        }
        found++;
    }
    *count = found;
    return found && (!infos || found > room) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

FAKE_DEVICE(nvmlDeviceGetComputeRunningProcesses_v3, unsigned int *count, nvmlProcessInfo_t *infos)
    return list(card, instance, 1, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetGraphicsRunningProcesses_v3, unsigned int *count, nvmlProcessInfo_t *infos)
    return list(card, instance, 2, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetMPSComputeRunningProcesses_v3, unsigned int *count, nvmlProcessInfo_t *infos)
    return list(card, instance, 4, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetComputeRunningProcesses_v2, unsigned int *count, nvmlProcessInfo_v2_t *infos)
    return list(card, instance, 1, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetGraphicsRunningProcesses_v2, unsigned int *count, nvmlProcessInfo_v2_t *infos)
    return list(card, instance, 2, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetMPSComputeRunningProcesses_v2, unsigned int *count, nvmlProcessInfo_v2_t *infos)
    return list(card, instance, 4, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetComputeRunningProcesses, unsigned int *count, nvmlProcessInfo_v1_t *infos)
    return list(card, instance, 1, count, infos, sizeof *infos);
END

FAKE_DEVICE(nvmlDeviceGetGraphicsRunningProcesses, unsigned int *count, nvmlProcessInfo_v1_t *infos)
    return list(card, instance, 2, count, infos, sizeof *infos);
END

static unsigned long long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (unsigned long long)now.tv_sec * 1000000ull + (unsigned long long)now.tv_nsec / 1000ull;
}

#define MAX_MADE 16

/* The driver's sample buffer after a time stamp: what the test put there, and what running processes made. */
static unsigned collect(const struct fake_card *card, unsigned long long after, struct fake_sample *samples)
{
    unsigned count = 0;
    for (unsigned i = 0; i < card->sample_count; i++)
        samples[count++] = card->samples[i];
    unsigned long long period = card->sample_period_us;
    if (!period)
        return count;
    unsigned long long last = now_us() / period * period;
    for (unsigned i = 0; i < card->process_count; i++) {
        const struct fake_process *process = &card->processes[i];
        if (!(process->sm | process->mem | process->enc | process->dec))
            continue;
        for (int back = MAX_MADE - 1; back >= 0; back--) {
            unsigned long long stamp = last - (unsigned long long)back * period;
            if (stamp > after)
                samples[count++] = (struct fake_sample){stamp, process->pid, process->sm, process->mem,
                                                        process->enc, process->dec, 0};
        }
    }
    return count;
}

FAKE_DEVICE(nvmlDeviceGetProcessUtilization, nvmlProcessUtilizationSample_t *utilization, unsigned int *count, unsigned long long after)
    if (is_partitioned(card))
        return NVML_ERROR_NOT_SUPPORTED;
    struct fake_card copy;
    struct fake_sample samples[FAKE_MAX_SAMPLES + FAKE_MAX_PROCESSES * MAX_MADE];
    steady(card, &copy, PROCESSES_AND_SAMPLES);
    unsigned found = collect(&copy, after, samples);
    if (!utilization || *count < found) {
        if (copy.sizing_call_succeeds) {
            *count = 0;
            return NVML_SUCCESS;
        }
        *count = found > copy.sizing_count ? found : copy.sizing_count;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < found; i++)
        utilization[i] = (nvmlProcessUtilizationSample_t){samples[i].pid, samples[i].time_stamp, samples[i].sm,
                                                          samples[i].mem, samples[i].enc, samples[i].dec};
    *count = found;
    return found ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
END

FAKE_NONE(nvmlDeviceGetProcessesUtilizationInfo, nvmlProcessesUtilizationInfo_t *info)
FAKE_NONE(nvmlDeviceGetRunningProcessDetailList, nvmlProcessDetailList_t *list_)
FAKE_NONE(nvmlDeviceGetSamples, nvmlSamplingType_t type, unsigned long long after, nvmlValueType_t *kind, unsigned int *count, nvmlSample_t *samples)
FAKE_NONE(nvmlDeviceGetCoolerInfo, nvmlCoolerInfo_t *cooler)
FAKE_NONE(nvmlDeviceGetThermalSettings, unsigned int index, nvmlGpuThermalSettings_t *settings)
FAKE_NONE(nvmlDeviceGetAccountingMode, nvmlEnableState_t *mode)
FAKE_NONE(nvmlDeviceGetJpgUtilization, unsigned int *utilization, unsigned int *period)
FAKE_NONE(nvmlDeviceGetOfaUtilization, unsigned int *utilization, unsigned int *period)
FAKE_NONE(nvmlDeviceGetSerial, char *serial, unsigned int length)
FAKE_NONE(nvmlDeviceGetTotalEccErrors, nvmlMemoryErrorType_t kind, nvmlEccCounterType_t counter, unsigned long long *errors)
FAKE_NONE(nvmlDeviceGetDriverModel, nvmlDriverModel_t *current, nvmlDriverModel_t *pending)
FAKE_NONE(nvmlDeviceGetDriverModel_v2, nvmlDriverModel_t *current, nvmlDriverModel_t *pending)
FAKE_NONE(nvmlDeviceGetConfComputeMemSizeInfo, nvmlConfComputeMemSizeInfo_t *info)
FAKE_NONE(nvmlDeviceGetPcieThroughput, nvmlPcieUtilCounter_t counter, unsigned int *value)
FAKE_NONE(nvmlDeviceGetMaxPcieLinkGeneration, unsigned int *generation)
FAKE_NONE(nvmlDeviceGetMaxPcieLinkWidth, unsigned int *width)
FAKE_NONE(nvmlDeviceGetCurrPcieLinkGeneration, unsigned int *generation)
FAKE_NONE(nvmlDeviceGetCurrPcieLinkWidth, unsigned int *width)
