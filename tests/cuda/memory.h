// Device memory of the emulated runtime: blocks between guard zones in one region that can be
// touched between open() and close() only. No locks: the runtime has one.
#pragma once

#include <stddef.h>

namespace memory {

constexpr size_t capacity = (size_t)1 << 30;

void open(); // may be nested
void close();

// Filled with 0xff: NaN in every format. Null when the region is full.
void *take(size_t bytes);
// The block can no longer be named; what is queued may still use it.
bool leave(void *address);
// It is free for others. False when a guard zone was written to.
bool give(void *address);

// Whether [address, address + bytes) lies in a block that can be named.
bool is_live(const void *address, size_t bytes);
bool intact(); // all guard zones
size_t bytes();

} // namespace memory
