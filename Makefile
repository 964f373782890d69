# A thin front to CMake. `make demo` and `make test` need nothing but Debian, git and make.
BUILD    ?= build
SANITIZE ?= build-sanitize
FUZZ     ?= build-fuzz
RUNS     ?= 1000000
PREFIX   ?= /usr/local
JOBS     ?= $(shell nproc)
export CTEST_OUTPUT_ON_FAILURE = 1

.PHONY: all packages configure build command demo test test-fast test-sanitize test-fuzz fuzz fuzz-build bench device-check device-bundle install tidy format clean

all: build

packages:
	@.ci/packages

configure: packages
	@cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }

build: configure
	cmake --build $(BUILD) -j $(JOBS)

# What a user needs: the libraries and the command, with the kernels where nvcc is, without tests.
command: configure
	cmake --build $(BUILD) -j $(JOBS) --target tweedie tweedie_shared tweedie_static

# Samples digits, trains on the S-curve, and leaves pictures in out/.
demo: command
	@sh host/examples/demo.sh $(BUILD)/host/tweedie out

test: test-fast test-sanitize test-fuzz

test-fast: build
	ctest --test-dir $(BUILD) -j $(JOBS)

test-sanitize: packages
	@cmake -S . -B $(SANITIZE) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTW_SANITIZE=ON -DTW_CUDA=OFF >$(SANITIZE).log 2>&1 || { cat $(SANITIZE).log; exit 1; }
	cmake --build $(SANITIZE) -j $(JOBS)
	ctest --test-dir $(SANITIZE) -j $(JOBS) -LE "slow|install"

fuzz-build:
	@.ci/packages clang libclang-rt-dev
	@cmake -S . -B $(FUZZ) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DTW_FUZZ=ON >$(FUZZ).log 2>&1 || { cat $(FUZZ).log; exit 1; }
	cmake --build $(FUZZ) -j $(JOBS)

# Every reader of files over its corpus of inputs, and some seconds of mutations.
test-fuzz: fuzz-build
	ctest --test-dir $(FUZZ) -j $(JOBS)

# The long run: make fuzz RUNS=10000000
fuzz: fuzz-build
	@for target in $(FUZZ)/tests/fuzz/fuzz_*; do \
	    sh tests/fuzz/run.sh $$target $(FUZZ)/tests/fuzz/found -runs=$(RUNS) || exit 1; done

# On a GPU the kernels are measured; elsewhere the plan is printed: rows, bytes, floors, predictions.
bench: configure
	cmake --build $(BUILD) -j $(JOBS) --target kernel_bench
	@$(BUILD)/bench/kernel_bench

# Everything a machine with a GPU can say about kernels and engine: make device-check OUT=dir
device-check:
	sh bench/device_check.sh "$(OUT)"

# What that runs, with the libraries that it needs, for a machine that cannot build it: the folder
# build-bundle, and build-bundle.tar.xz, which device-check takes where it lies beside the sources.
device-bundle:
	@.ci/packages xz-utils
	sh bench/device_bundle.sh build-bundle

install: command
	cmake --install $(BUILD) --prefix $(PREFIX)

tidy: configure
	git ls-files 'host/*.c' ':!host/examples' | xargs -P $(JOBS) -n 4 clang-tidy -p $(BUILD) --quiet

format:
	git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf $(BUILD) $(SANITIZE) $(FUZZ) build-device build-check build-bundle build-bundle.tar.xz $(BUILD).log $(SANITIZE).log $(FUZZ).log
