# vitd: make help lists the targets.

VERSION    := 0.1.0
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
DESTDIR    ?=
BUILD      ?= build
CC         ?= gcc
PORT       ?= 8080
JOBS       := -j$(shell nproc 2>/dev/null || echo 1)

WARNINGS   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
OPT        ?= -O3
CFLAGS     ?= $(OPT) -g -fstack-protector-strong -D_FORTIFY_SOURCE=2
LDFLAGS    ?= -Wl,-z,relro,-z,now
EXTRA      ?=
ISA        :=
# make V=1 shows whole commands
Q          := $(if $(V),,@)

ENGINE_PKGS := openblas libcjson libjpeg zlib libutf8proc
SERVER_PKGS := libmicrohttpd gnutls
TEST_PKGS   := check libcurl
pkg          = $(shell pkg-config $(1) $(2) 2>/dev/null)

BASE_FLAGS   := -std=gnu11 -D_GNU_SOURCE -I. -Iinclude $(WARNINGS) -MMD -MP -pthread
INCLUDES      = $(call pkg,--cflags,$(ENGINE_PKGS) $(SERVER_PKGS))
ENGINE_LIBS   = $(call pkg,--libs,$(ENGINE_PKGS)) -lm
SERVER_LIBS   = $(call pkg,--libs,$(SERVER_PKGS)) $(ENGINE_LIBS)
VERSION_FLAGS := -DVITD_VERSION='"$(VERSION)"'

ENGINE_SRC := $(sort $(wildcard engine/*/*.c engine/*/*/*.c))
SERVER_SRC := $(sort $(wildcard server/*.c server/*/*.c server/*/*/*.c))
ALL_TESTS  := $(sort $(wildcard tests/test_*.c))
# THREADED=1: those of the server's threads, for ThreadSanitizer; the engine shares runs among threads in them, too
THREADED   ?=
TEST_SRC   := $(if $(THREADED),$(shell grep -lE 'include .*(pthread|microhttpd|/daemon|/clients|/upload|/team|/workers|/loader)\.h' \
              $(ALL_TESTS)),$(ALL_TESTS))
FUZZ_SRC   := $(if $(THREADED),,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

ENGINE_OBJ := $(ENGINE_SRC:%.c=$(BUILD)/%.o)
SERVER_OBJ := $(SERVER_SRC:%.c=$(BUILD)/%.o)
TEST_BIN   := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)
FUZZ_BIN   := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/tests/%)
# what several suites share, and the server without its main(), to test its modules
TEST_HELP  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(ALL_TESTS),$(wildcard tests/*.c)))
SERVER_LIB := $(filter-out $(BUILD)/server/main.o,$(SERVER_OBJ))

.PHONY: all run test test-deploy test-systemd test-web bench bench-models bench-vits stress asan tsan fuzz lint deps \
	install uninstall clean help
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/vitd $(BUILD)/libvit.a  ## build build/vitd and build/libvit.a (installs nothing)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 21
	@echo "Variables: PREFIX, DESTDIR, BUILD, OPT, CC, PORT (for make run), V=1 (show commands)."

# The vector kernels are compiled for their instruction set and chosen at run time.
KERNELS := $(BUILD)/engine/math/kernels
AVX2    := -mavx2 -mfma
AVX512  := -mavx512f -mprefer-vector-width=512
# a tile's sums stay in registers only if GCC does not see a memset in their zeroes
TILES   := -fno-tree-loop-distribute-patterns
# bf16 and int8 equal their reference bit for bit: no sum and product in one rounding
EXACT   := -ffp-contract=off
$(KERNELS)/avx2.o: ISA := $(AVX2)
$(KERNELS)/avx512.o: ISA := $(AVX512)
$(KERNELS)/fp32_avx2.o: ISA := $(AVX2) $(TILES)
$(KERNELS)/fp32_avx512.o: ISA := $(AVX512) $(TILES)
$(KERNELS)/bf16_avx512.o: ISA := $(AVX512) -mavx512bw -mavx512vl -mavx512bf16 $(TILES) $(EXACT)
$(KERNELS)/int8_avx512.o: ISA := $(AVX512) -mavx512bw -mavx512vl -mavx512vnni $(TILES) $(EXACT)
$(KERNELS)/int8_avx2.o: ISA := $(AVX2) -mavxvnni $(TILES) $(EXACT)
$(KERNELS)/products_generic.o: ISA := $(EXACT)

# what web.c takes into the binary
$(BUILD)/server/http/web/web.o: server/http/web/index.html server/http/web/openapi.json

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(BASE_FLAGS) $(VERSION_FLAGS) $(INCLUDES) $(CFLAGS) $(ISA) $(EXTRA) -c $< -o $@

$(BUILD)/libvit.a: $(ENGINE_OBJ)
	@rm -f $@
	@echo "  AR    $@"
	$(Q)$(AR) rcs $@ $^

$(BUILD)/vitd: $(SERVER_OBJ) $(BUILD)/libvit.a
	@echo "  LD    $@"
	$(Q)$(CC) -pthread $(CFLAGS) $(EXTRA) $(LDFLAGS) $^ $(SERVER_LIBS) -o $@

# ---- packages ----

DEB_BUILD := gcc make libc6-dev pkg-config libmicrohttpd-dev libcjson-dev libopenblas-dev libstb-dev \
             libjpeg62-turbo-dev zlib1g-dev libutf8proc-dev libgnutls28-dev
DEB_TEST  := check libcurl4-openssl-dev
DEB_SYSTEMD := systemd libseccomp-dev util-linux curl man-db
DEB_WEB   := chromium chromium-driver python3
# without quotes to expand, so that it also runs where make is all there is
define install_missing
	@missing=""; for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

deps:  ## install the Debian packages that building and testing need, if any is missing
	$(call install_missing,$(DEB_BUILD) $(DEB_TEST))

# ---- running ----

run:  ## install what is missing, build, and serve the bundled model on 127.0.0.1:8080
	$(call install_missing,$(DEB_BUILD))
	@$(MAKE) --no-print-directory $(JOBS) all
	$(BUILD)/vitd serve --port $(PORT)

test:  ## install what is missing, build, and run every test
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(JOBS) check-suites

test-systemd:  ## install what is missing (systemd, libseccomp), build, and run vitd as its service is confined
	$(call install_missing,$(DEB_BUILD) $(DEB_SYSTEMD))
	@$(MAKE) --no-print-directory $(JOBS) all $(BUILD)/tests/confine
	@tests/systemd/sandbox.sh $(BUILD)

test-web:  ## install what is missing (chromium), build, and use the page in a real browser
	$(call install_missing,$(DEB_BUILD) $(DEB_WEB))
	@$(MAKE) --no-print-directory $(JOBS) all
	@tests/web/run.sh $(BUILD)

test-deploy:  ## build, and restart and kill vitd under load behind HAProxy (unpacked into build/, not installed)
	$(call install_missing,$(DEB_BUILD))
	@$(MAKE) --no-print-directory $(JOBS) all $(BUILD)/tests/http_load
	@tests/deploy/run.sh $(BUILD)

.PHONY: check-suites
check-suites: $(TEST_BIN) $(FUZZ_BIN) $(BUILD)/vitd
	@tests/run.sh $(BUILD)

$(BUILD)/tests/test_%: tests/test_%.c $(TEST_HELP) $(SERVER_LIB) $(BUILD)/libvit.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(BASE_FLAGS) $(VERSION_FLAGS) $(INCLUDES) $(call pkg,--cflags,$(TEST_PKGS)) $(CFLAGS) $(EXTRA) $(LDFLAGS) \
		$< $(TEST_HELP) $(SERVER_LIB) $(BUILD)/libvit.a $(SERVER_LIBS) $(call pkg,--libs,$(TEST_PKGS)) -o $@

# What gives a fuzz target its main(): it replays files. `make fuzz` has libFuzzer's instead.
FUZZ_MAIN := tests/fuzz/replay.c
$(BUILD)/tests/fuzz_%: tests/fuzz/fuzz_%.c $(FUZZ_MAIN) $(SERVER_LIB) $(BUILD)/libvit.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(BASE_FLAGS) $(INCLUDES) $(CFLAGS) $(EXTRA) $(LDFLAGS) $^ $(SERVER_LIBS) -o $@

$(BUILD)/tests/confine: tests/systemd/confine.c
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(BASE_FLAGS) $(CFLAGS) $(EXTRA) $(LDFLAGS) $^ -lseccomp -o $@

# TSan sleeps a second at exit by default, and a test times the exit; a drain does not wait for the thread that loads models,
# nor for those of its warm-up
SANITIZE_ENV := OPENBLAS_NUM_THREADS=1 VITD_SANITIZED=1 TSAN_OPTIONS=atexit_sleep_ms=0:report_thread_leaks=0
asan:  ## the tests under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory deps
	@$(SANITIZE_ENV) $(MAKE) --no-print-directory BUILD=$(BUILD)-asan CFLAGS="-O1 -g -fno-omit-frame-pointer \
		-fsanitize=address,undefined -fno-sanitize-recover=all" $(JOBS) check-suites

tsan:  ## the tests that have threads under ThreadSanitizer
	@$(MAKE) --no-print-directory deps
	@$(SANITIZE_ENV) $(MAKE) --no-print-directory THREADED=1 BUILD=$(BUILD)-tsan CFLAGS="-O1 -g -fno-omit-frame-pointer \
		-fsanitize=thread" $(JOBS) check-suites

SECONDS_EACH ?= 60
fuzz:  ## fuzz each parser for SECONDS_EACH (60) seconds with clang's libFuzzer (needs clang)
	@command -v clang >/dev/null || { echo "make fuzz needs clang: apt-get install clang" >&2; exit 1; }
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-fuzz CFLAGS="-O1 -g" $(JOBS) fuzz-kernels
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-fuzz CC=clang CFLAGS="-O1 -g -fno-omit-frame-pointer \
		-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" EXTRA=-Wno-ignored-optimization-argument \
		FUZZ_MAIN= LDFLAGS=-fsanitize=fuzzer $(JOBS) fuzz-targets
	@tests/fuzz/fuzz.sh $(BUILD)-fuzz $(SECONDS_EACH)

.PHONY: fuzz-kernels fuzz-targets
fuzz-kernels: $(filter $(KERNELS)/%,$(ENGINE_OBJ))  # in vectors of GCC's that clang does not know
fuzz-targets: $(FUZZ_BIN)

bench: $(BUILD)/vitd $(BUILD)/tests/http_load  ## speed of the engine and of the daemon here, and build/bench.json
	@tests/bench/bench.sh $(BUILD)

$(BUILD)/tests/http_load: tests/bench/http_load.c
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(BASE_FLAGS) $(CFLAGS) $(EXTRA) $(LDFLAGS) $^ -lm -o $@

STRESS := $(patsubst tests/stress/%.c,$(BUILD)/tests/stress/%,\
            $(filter-out %/common.c %/client.c,$(sort $(wildcard tests/stress/*.c))))
# make stress STRESS_ONLY="slow overload"
stress: $(STRESS) $(BUILD)/vitd  ## months of use in half an hour: signals, slow clients, overload, a million requests
	@tests/stress/stress.sh $(BUILD) $(STRESS_ONLY)

$(BUILD)/tests/stress/%: $(BUILD)/tests/stress/%.o $(BUILD)/tests/stress/client.o $(BUILD)/tests/stress/common.o
	@echo "  LD    $@"
	$(Q)$(CC) -pthread $(CFLAGS) $(EXTRA) $(LDFLAGS) $^ -lm -o $@

bench-models: $(BUILD)/vitd  ## speed of each architecture at its published size, and build/bench-models.json (needs python3)
	@tests/bench/architectures.sh $(BUILD)

# make bench-vits VITS=vit-l DTYPES="fp32 bf16" THREADS=1
VITS ?= vit-ti vit-s vit-b
bench-vits: $(BUILD)/vitd  ## speed of plain ViTs (VITS), random weights, for each of DTYPES (fp32) (needs python3)
	@THREADS=$${THREADS:-$$(nproc)} tests/bench/architectures.sh $(BUILD) $(VITS)

lint:  ## include directions, shellcheck and cppcheck (the last two where installed)
	@tests/lint.sh

# ---- installing ----

UNITS := $(addprefix $(BUILD)/systemd/,vitd.service vitd@.service vitd.socket)

# made afresh: PREFIX may be another than the last time
.PHONY: FORCE
$(BUILD)/systemd/%: systemd/% FORCE
	@mkdir -p $(@D)
	sed 's|@BINDIR@|$(PREFIX)/bin|; s|@SYSCONFDIR@|$(SYSCONFDIR)|' $< > $@

# an instance has its own configuration, and says so
$(BUILD)/systemd/vitd@.service: $(BUILD)/systemd/vitd.service
	sed '1d; s|/vitd\.json$$|/%i.json|; s|^Description=.*|& (%i)|' $< > $@

install: all $(UNITS)  ## binary, library, headers, configuration, model, units and man pages (DESTDIR, PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/vitd \
		$(DESTDIR)$(PREFIX)/share/vitd/models/vit-tiny-64 $(DESTDIR)$(PREFIX)/share/man/man5 \
		$(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(SYSCONFDIR)/vitd $(DESTDIR)$(UNITDIR)
	install -m 755 -s $(BUILD)/vitd $(DESTDIR)$(PREFIX)/bin/vitd
	install -m 644 $(BUILD)/libvit.a $(DESTDIR)$(PREFIX)/lib/libvit.a
	install -m 644 include/*.h $(DESTDIR)$(PREFIX)/include/vitd/
	install -m 644 config/models/vit-tiny-64/* $(DESTDIR)$(PREFIX)/share/vitd/models/vit-tiny-64/
	install -m 644 systemd/vitd.json.5 $(DESTDIR)$(PREFIX)/share/man/man5/vitd.json.5
	install -m 644 systemd/vitd.8 $(DESTDIR)$(PREFIX)/share/man/man8/vitd.8
	install -m 644 $(UNITS) $(DESTDIR)$(UNITDIR)/
	test -e $(DESTDIR)$(SYSCONFDIR)/vitd/vitd.json || \
		install -m 644 config/vitd.json $(DESTDIR)$(SYSCONFDIR)/vitd/vitd.json

uninstall:  ## remove what install put in place, except the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/vitd $(DESTDIR)$(PREFIX)/lib/libvit.a \
		$(DESTDIR)$(PREFIX)/share/man/man5/vitd.json.5 $(DESTDIR)$(PREFIX)/share/man/man8/vitd.8 \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))
	rm -rf $(DESTDIR)$(PREFIX)/include/vitd $(DESTDIR)$(PREFIX)/share/vitd

clean:  ## remove everything built
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz

-include $(ENGINE_OBJ:.o=.d) $(SERVER_OBJ:.o=.d) $(TEST_HELP:.o=.d) $(TEST_BIN:=.d) $(FUZZ_BIN:=.d) \
    $(patsubst %.c,$(BUILD)/%.d,$(wildcard tests/stress/*.c))
