# A thin front to CMake. `make demo` and `make test` need nothing but Debian, git and make.
BUILD    ?= build
SANITIZE ?= build-sanitize
PREFIX   ?= /usr/local
JOBS     ?= $(shell nproc)
export CTEST_OUTPUT_ON_FAILURE = 1

.PHONY: all packages build demo test test-fast test-sanitize bench device-check install format clean

all: build

packages:
	@.ci/packages

build: packages
	@cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	cmake --build $(BUILD) -j $(JOBS)

# Trains on real digits and on the S-curve, samples, and leaves pictures in out/.
demo: build
	@sh host/examples/demo.sh $(BUILD)/host/tweedie out

test: test-fast test-sanitize

test-fast: build
	ctest --test-dir $(BUILD) -j $(JOBS)

test-sanitize: packages
	@cmake -S . -B $(SANITIZE) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTW_SANITIZE=ON -DTW_CUDA=OFF >$(SANITIZE).log 2>&1 || { cat $(SANITIZE).log; exit 1; }
	cmake --build $(SANITIZE) -j $(JOBS)
	ctest --test-dir $(SANITIZE) -j $(JOBS) -LE "slow|install"

# On a GPU the kernels are measured; elsewhere the plan is printed: rows, bytes, floors, predictions.
bench: build
	@$(BUILD)/bench/kernel_bench

# Everything a machine with a GPU and nvcc can say about the kernels: make device-check OUT=dir
device-check:
	sh bench/device_check.sh "$(OUT)"

install: build
	cmake --install $(BUILD) --prefix $(PREFIX)

format:
	git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf $(BUILD) $(SANITIZE) $(BUILD).log $(SANITIZE).log
