// A library that stands in for cuDNN, cuBLASLt and the driver where there is no GPU: it keeps the
// descriptors as they are set, and executes what they say in double on the host, by the libraries'
// manuals. Time is what the engines say that they take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace fake {

// In place of what a library knows of an algorithm.
struct Engine {
    int64_t index = 0;
    size_t workspace = 0;
    float milliseconds = 1;
    int behaviour = -1, numerical = -1; // a note; -1: none
    int mode = 3;                       // cuDNN's heuristic that proposes it: A
    bool refused = false;               // no plan is made of it
    bool wrong = false;                 // its results are half as large again
    bool breaks = false;                // its execution fails
};

struct State {
    int n_engines = 0;
    Engine engines[8];
    int live = 0;        // descriptors and handles that were not destroyed
    int executed = 0;    // calls so far
    int64_t engine = -1; // that was executed last
    void *stream = nullptr;
    float clock = 0;
    bool capturing = false, no_memory = false, no_handle = false;
    size_t version = 0;    // that the libraries say; 0: a right one
    int asked = 0;         // heuristics so far
    size_t limit = 0;      // of workspace, as the last wish said it
    uint32_t sums = 0;     // the schemes of split sums it allowed
    uint32_t alignment[4]; // of a, b, c, d
    // Executes in the stream's order; null: at once.
    bool (*later)(void *stream, std::function<bool()> call) = nullptr;
};

} // namespace fake

// Exported as fake_state.
using fake_state_fn = fake::State *(*)();
