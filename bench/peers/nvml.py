"""What NVIDIA's management library says of a GPU: energy, clocks, power limit."""
import ctypes
import os


class Gpu:
    """The GPU that programs see first. `Gpu.open()` gives None where there is none."""

    def __init__(self, library):
        self.nvml, self.handle = library, ctypes.c_void_p()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        if first.isdigit():
            self.call("DeviceGetHandleByIndex_v2", ctypes.c_uint(int(first)),
                      ctypes.byref(self.handle))
        else:
            self.call("DeviceGetHandleByUUID", first.encode(), ctypes.byref(self.handle))

    @staticmethod
    def open(name="libnvidia-ml.so.1"):
        try:
            library = ctypes.CDLL(name)
            if library.nvmlInit_v2() != 0:
                return None
            return Gpu(library)
        except (OSError, AttributeError, RuntimeError):
            return None

    def call(self, function, *arguments):
        status = getattr(self.nvml, "nvml" + function)(*arguments)
        if status != 0:
            raise RuntimeError(f"nvml{function}: {status}")

    def number(self, function, kind, *arguments):
        """None where this GPU or driver does not say."""
        value = kind()
        try:
            self.call(function, self.handle, *arguments, ctypes.byref(value))
        except (AttributeError, RuntimeError):
            return None
        return value.value

    def text(self, function, *arguments):
        value = ctypes.create_string_buffer(96)
        try:
            self.call(function, *arguments, value, ctypes.c_uint(96))
        except (AttributeError, RuntimeError):
            return None
        return value.value.decode()

    def joules(self):
        """Since the driver was loaded; None where it is not counted."""
        value = self.number("DeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if value is None else value / 1000

    def describe(self):
        watts = self.number("DeviceGetEnforcedPowerLimit", ctypes.c_uint)
        clock = ctypes.c_uint
        return {"gpu": self.text("DeviceGetName", self.handle),
                "driver": self.text("SystemGetDriverVersion"),
                "watts": None if watts is None else watts / 1000,
                "sm_mhz": self.number("DeviceGetClockInfo", clock, ctypes.c_uint(1)),
                "sm_mhz_most": self.number("DeviceGetMaxClockInfo", clock, ctypes.c_uint(1)),
                "memory_mhz": self.number("DeviceGetClockInfo", clock, ctypes.c_uint(2))}
