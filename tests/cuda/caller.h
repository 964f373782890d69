// A program that embeds the library: its stream and its device memory.
#pragma once

#include "support.h"

extern "C" {
#include "backend/cuda/runtime.h"
}

class Caller {
  public:
    Caller() {
        EXPECT_EQ(rt->use(0), TW_CUDA_OK);
        EXPECT_EQ(rt->stream_create(&stream), TW_CUDA_OK);
        allocator = {Allocate, Release, this};
        options.stream = stream;
        options.device_allocator = &allocator;
    }
    ~Caller() {
        EXPECT_EQ(lent, 0);
        rt->stream_destroy(stream);
    }
    const tw_cuda_runtime *rt = tw_cuda_runtime_get();
    tw_cuda_stream stream = nullptr;
    tw_device_allocator allocator;
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    int64_t lent = 0, calls = 0, fail_at = -1;
    bool crooked = false;

  private:
    static void *Allocate(void *user, size_t bytes, void *stream) {
        Caller *c = static_cast<Caller *>(user);
        void *out = nullptr;
        EXPECT_EQ(stream, c->stream);
        if (c->calls++ == c->fail_at) return nullptr;
        EXPECT_EQ(c->rt->allocate(nullptr, c->stream, bytes + 512, &out), TW_CUDA_OK);
        c->lent++;
        return static_cast<char *>(out) + (c->crooked ? 16 : 256);
    }
    static void Release(void *user, void *memory, void *stream) {
        Caller *c = static_cast<Caller *>(user);
        EXPECT_EQ(stream, c->stream);
        c->lent--;
        EXPECT_EQ(c->rt->release(nullptr, c->stream,
                                 static_cast<char *>(memory) - (c->crooked ? 16 : 256)),
                  TW_CUDA_OK);
    }
};
