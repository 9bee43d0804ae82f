"""ROUNDS PAUSE_SECONDS: gpuwhyd's NVML calls through nvidia-ml-py's own functions, and the CPU time that they take.

Prints microseconds of CPU a round. See bench_loop.c for the same in C.
"""

import sys
import time

import pynvml as nvml


def read_card(card: object) -> None:
    nvml.nvmlDeviceGetFieldValues(card, [185, 186])
    nvml.nvmlDeviceGetTemperature(card, 0)
    nvml.nvmlDeviceGetEnforcedPowerLimit(card)
    nvml.nvmlDeviceGetUtilizationRates(card)
    nvml.nvmlDeviceGetEncoderUtilization(card)
    nvml.nvmlDeviceGetDecoderUtilization(card)
    nvml.nvmlDeviceGetMemoryInfo(card, nvml.nvmlMemory_v2)
    nvml.nvmlDeviceGetNumFans(card)
    nvml.nvmlDeviceGetFanSpeed_v2(card, 0)
    nvml.nvmlDeviceGetFanSpeedRPM(card)
    nvml.nvmlDeviceGetTargetFanSpeed(card, 0)
    nvml.nvmlDeviceGetFanControlPolicy_v2(card, 0)
    nvml.nvmlDeviceGetPerformanceState(card)
    nvml.nvmlDeviceGetTotalEnergyConsumption(card)
    nvml.nvmlDeviceGetTemperatureThreshold(card, 1)
    nvml.nvmlDeviceGetClockInfo(card, 0)
    nvml.nvmlDeviceGetClockInfo(card, 2)
    nvml.nvmlDeviceGetCurrentClocksEventReasons(card)
    nvml.nvmlDeviceGetComputeRunningProcesses(card)
    nvml.nvmlDeviceGetGraphicsRunningProcesses(card)
    nvml.nvmlDeviceGetMPSComputeRunningProcesses(card)
    nvml.nvmlDeviceGetProcessUtilization(card, time.time_ns() // 1000 - 2_000_000)


rounds, pause_seconds = int(sys.argv[1]), float(sys.argv[2])
nvml.nvmlInit()
cards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
spent_ns = 0
for _ in range(rounds):
    time.sleep(pause_seconds)
    began_ns = time.process_time_ns()
    for card in cards:
        read_card(card)
    spent_ns += time.process_time_ns() - began_ns
print(f"{spent_ns / rounds / 1000:.2f} -")
