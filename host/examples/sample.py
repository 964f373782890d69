"""Draws eight samples from a model directory into one picture: sample.py LIBRARY MODEL OUT.ppm

LIBRARY is libtweedie.so, as `make install` puts it. Nothing but Python's own modules is needed."""
import ctypes
import sys
from ctypes import byref, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p


class SamplerOptions(ctypes.Structure):
    """The first fields of tw_sampler_options: those past `size` keep their defaults."""

    _fields_ = [("size", c_size_t), ("kind", c_int), ("steps", c_int64), ("eta", c_double)]


class ModelInfo(ctypes.Structure):
    """The first fields of tw_model_info."""

    _fields_ = [("size", c_size_t), ("kind", c_char * 32), ("rank", c_int), ("shape", c_int64 * 3)]


class Sampler:
    """Draws from one model directory."""

    def __init__(self, library, directory, steps, eta=0.0):
        self.tw = ctypes.CDLL(library)
        self.tw.tw_context_error.restype = c_char_p
        self.context, self.model, self.sampler = c_void_p(), c_void_p(), c_void_p()
        info = ModelInfo(size=ctypes.sizeof(ModelInfo))
        options = SamplerOptions(ctypes.sizeof(SamplerOptions), 0, steps, eta)  # 0: DDIM
        self.do("tw_context_create", None, byref(self.context))
        self.do("tw_model_load", self.context, directory.encode(), None, byref(self.model))
        self.do("tw_model_get_info", self.model, byref(info))
        self.do("tw_sampler_create", self.model, byref(options), byref(self.sampler))
        self.shape = list(info.shape[: info.rank])  # height, width, channels

    def do(self, name, *arguments):
        if getattr(self.tw, name)(*arguments) != 0:
            raise RuntimeError(self.tw.tw_context_error(self.context).decode())

    def draw(self, n, labels=None):
        """n samples one behind the other, in [-1, 1]: numpy.frombuffer(...) makes an array of them
        without a copy."""
        count = n
        for extent in self.shape:
            count *= extent
        numbers = (ctypes.c_float * count)()
        labels = (ctypes.c_int32 * n)(*labels) if labels else None
        self.do("tw_sampler_run", self.sampler, c_int64(n), labels, None, numbers)
        return numbers

    def close(self):
        self.tw.tw_sampler_free(self.sampler)
        self.tw.tw_model_free(self.model)
        self.tw.tw_context_free(self.context)
        self.sampler, self.model, self.context = c_void_p(), c_void_p(), c_void_p()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sampler = Sampler(sys.argv[1], sys.argv[2], steps=10)
    height, width, channels = sampler.shape
    numbers = sampler.draw(8)
    levels = [min(255, max(0, round(127.5 * x + 127.5))) for x in numbers]
    if channels == 1:  # grey has one channel, a picture three
        levels = [level for level in levels for _ in range(3)]
    with open(sys.argv[3], "wb") as out:
        out.write(b"P6\n%d %d\n255\n" % (width, 8 * height))
        out.write(bytes(levels))
    sampler.close()


if __name__ == "__main__":
    main()
