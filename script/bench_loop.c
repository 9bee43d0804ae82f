/* bench_loop ROUNDS PAUSE_MS: the NVML calls that gpuwhyd makes each tick, bare, and the CPU time that they take.
 *
 * Prints microseconds of CPU a round, and calls a round: what the driver's library itself costs, the limit for any
 * program that reads as much. Sleeps PAUSE_MS between rounds, so that caches are as cold as a real program's. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nvml.h>

#define MOST_CARDS 64
#define ROOM 4096
#define SAMPLED_US 2000000ull /* the samples of a tick of 2 s */

static unsigned long calls;
#define CALL(function) (calls++, function)

static double cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void read_lists(nvmlDevice_t card)
{
    static nvmlProcessInfo_t infos[ROOM];
    unsigned count = ROOM;
    CALL(nvmlDeviceGetComputeRunningProcesses_v3(card, &count, infos));
    count = ROOM;
    CALL(nvmlDeviceGetGraphicsRunningProcesses_v3(card, &count, infos));
    count = ROOM;
    CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3(card, &count, infos));
}

static void read_samples(nvmlDevice_t card)
{
    static nvmlProcessUtilizationSample_t samples[ROOM];
    struct timespec now;
    unsigned count = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned long long after = (unsigned long long)now.tv_sec * 1000000ull + (unsigned long long)now.tv_nsec / 1000ull;
    after -= SAMPLED_US;
    CALL(nvmlDeviceGetProcessUtilization(card, NULL, &count, after));
    count = ROOM;
    CALL(nvmlDeviceGetProcessUtilization(card, samples, &count, after));
}

static void read_card(nvmlDevice_t card)
{
    unsigned value, other;
    unsigned long long large;
    nvmlUtilization_t utilization;
    nvmlPstates_t pstate;
    nvmlMemory_v2_t memory = {.version = nvmlMemory_v2};
    nvmlFieldValue_t fields[2] = {{.fieldId = NVML_FI_DEV_POWER_AVERAGE}, {.fieldId = NVML_FI_DEV_POWER_INSTANT}};
    nvmlFanSpeedInfo_t speed = {.version = nvmlFanSpeedInfo_v1};
    nvmlFanControlPolicy_t policy;
    CALL(nvmlDeviceGetFieldValues(card, 2, fields));
    CALL(nvmlDeviceGetTemperature(card, NVML_TEMPERATURE_GPU, &value));
    CALL(nvmlDeviceGetEnforcedPowerLimit(card, &value));
    CALL(nvmlDeviceGetUtilizationRates(card, &utilization));
    CALL(nvmlDeviceGetEncoderUtilization(card, &value, &other));
    CALL(nvmlDeviceGetDecoderUtilization(card, &value, &other));
    CALL(nvmlDeviceGetMemoryInfo_v2(card, &memory));
    CALL(nvmlDeviceGetNumFans(card, &value));
    CALL(nvmlDeviceGetFanSpeed_v2(card, 0, &value));
    CALL(nvmlDeviceGetFanSpeedRPM(card, &speed));
    CALL(nvmlDeviceGetTargetFanSpeed(card, 0, &value));
    CALL(nvmlDeviceGetFanControlPolicy_v2(card, 0, &policy));
    CALL(nvmlDeviceGetPerformanceState(card, &pstate));
    CALL(nvmlDeviceGetTotalEnergyConsumption(card, &large));
    CALL(nvmlDeviceGetTemperatureThreshold(card, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, &value));
    CALL(nvmlDeviceGetClockInfo(card, NVML_CLOCK_GRAPHICS, &value));
    CALL(nvmlDeviceGetClockInfo(card, NVML_CLOCK_MEM, &value));
    CALL(nvmlDeviceGetCurrentClocksEventReasons(card, &large));
    read_lists(card);
    read_samples(card);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    long rounds = atol(argv[1]), pause_ms = atol(argv[2]);
    nvmlDevice_t cards[MOST_CARDS];
    unsigned count = 0;
    if (nvmlInit_v2() || nvmlDeviceGetCount_v2(&count) || !count || count > MOST_CARDS)
        return 1;
    for (unsigned i = 0; i < count; i++)
        if (nvmlDeviceGetHandleByIndex_v2(i, &cards[i]))
            return 1;
    double spent = 0;
    for (long round = 0; round < rounds; round++) {
        struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
        double begin = cpu_us();
        for (unsigned i = 0; i < count; i++)
            read_card(cards[i]);
        spent += cpu_us() - begin;
    }
    printf("%.2f %.0f\n", spent / (double)rounds, (double)calls / (double)rounds);
    nvmlShutdown();
    return 0;
}
