// A library of the right name that is something else.
extern "C" __attribute__((visibility("default"))) int something_else() {
    return 1;
}
