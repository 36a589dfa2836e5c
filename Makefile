# SPDX-License-Identifier: GPL-2.0-only
#
# make            build criu/criu (silent; V=1 shows commands, SANITIZE=1 adds ASan and UBSan)
# make check      lint, unit tests and the quick cycle tests
# See Documentation/TESTING.md for the rest.

ARCH	?= $(shell uname -m)
CC	?= gcc
PREFIX	?= /usr/local
SBINDIR	?= $(PREFIX)/sbin
LIBDIR	?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR	?= $(PREFIX)/share/man
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR	?= $(PREFIX)/lib/systemd/system
DESTDIR	?=
KIND	:= $(if $(SANITIZE),-sanitize)$(if $(COVERAGE),-coverage)
BUILD	:= build$(KIND)
BIN	:= criu/criu$(KIND)
Q	:= $(if $(V),,@)

VERSION	:= $(shell cat VERSION)
GITID	:= $(shell git describe --always --dirty 2>/dev/null)

CFLAGS	?= -O2 -g
WARN	:= -Wall -Wextra -Wshadow -Wmissing-prototypes -Wno-missing-field-initializers $(WERROR)
PKGS	:= libprotobuf-c libnl-3.0
CPPFLAGS += -D_GNU_SOURCE -Icriu -I$(BUILD) $(shell pkg-config --cflags $(PKGS))
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) -fno-common -fno-pie -ffunction-sections -fdata-sections \
	  -fstack-protector-strong $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-omit-frame-pointer) \
	  $(if $(COVERAGE),--coverage -fprofile-update=atomic)
comma	:= ,
# Not position independent: start-up would relocate every pointer of every message descriptor.
ALL_LDFLAGS = $(LDFLAGS) -Wl,--gc-sections -Wl,--as-needed -no-pie $(if $(SANITIZE),-fsanitize=address$(comma)undefined) $(if $(COVERAGE),--coverage)
LIBS	:= $(shell pkg-config --libs $(PKGS)) -lpthread

PROTOS	:= $(wildcard images/*.proto)
PB_C	:= $(PROTOS:images/%.proto=$(BUILD)/images/%.pb-c.c)
PB_O	:= $(PB_C:.c=.o)
SRC	:= $(filter-out %_test.c criu/base/test.c criu/main.c,$(wildcard criu/*/*.c)) \
	   $(wildcard criu/*/arch/$(ARCH)/*.c)
ASM	:= $(wildcard criu/remote/arch/$(ARCH)/*.S)
OBJ	:= $(SRC:%.c=$(BUILD)/%.o) $(ASM:%.S=$(BUILD)/%.o)
LIB	:= $(BUILD)/libcriu-internal.a
TESTS	:= $(wildcard criu/*/*_test.c)
UNIT	:= $(BUILD)/unit

.PHONY: all check unit cycle vm interop bench fuzz fuzz-replay kill fault coverage lint install uninstall clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BIN) test/mk/mk lib

$(BIN): $(BUILD)/criu/main.o $(LIB)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(LIB): $(OBJ) $(PB_O)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

# One run of protoc-c makes all of them.
$(PB_C) &: $(PROTOS)
	$(if $(Q),@echo "  PROTO images/*.proto")
	$(Q)mkdir -p $(BUILD)/images
	$(Q)cd images && protoc-c --c_out=$(abspath $(BUILD)/images) $(notdir $(PROTOS))

$(BUILD)/images/%.o: $(BUILD)/images/%.c
	$(Q)$(CC) $(CPPFLAGS) -I$(BUILD)/images $(ALL_CFLAGS) -w -c -o $@ $<

$(BUILD)/%.o: %.c Makefile | $(PB_C)
	$(if $(Q),@echo "  CC    $<")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -I$(BUILD)/images $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.S
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

# What has the version is made again when that changes.
$(BUILD)/version.h: FORCE
	$(Q)mkdir -p $(BUILD)
	$(Q)printf '#define VERSION "%s"\n#define GITID "%s"\n' '$(VERSION)' '$(GITID)' >$@.new
	$(Q)cmp -s $@ $@.new && rm $@.new || mv $@.new $@
$(BUILD)/criu/main.o $(BUILD)/criu/rpc/requests.o: $(BUILD)/version.h
FORCE:

$(UNIT): $(BUILD)/criu/base/test.o $(TESTS:%.c=$(BUILD)/%.o) $(LIB)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# libcriu: what is not declared in criu.h stays inside, of the archive as of the shared library.
SO_VERSION := 2
SO	:= $(BUILD)/lib/libcriu.so.$(SO_VERSION).0
SO_LINKS := $(BUILD)/lib/libcriu.so.$(SO_VERSION) $(BUILD)/lib/libcriu.so
LIB_O	:= $(patsubst %.c,$(BUILD)/%.o,$(wildcard lib/*.c)) $(BUILD)/lib/rpc.pb-c.o
LIB_FLAGS = -std=gnu11 $(CFLAGS) -fPIC -fvisibility=hidden -fstack-protector-strong $(SANITIZE_FLAGS) \
	  -D_GNU_SOURCE -Iinclude -I$(BUILD) $(shell pkg-config --cflags libprotobuf-c)
SANITIZE_FLAGS := $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-omit-frame-pointer)

.PHONY: lib
lib: $(SO) $(SO_LINKS) $(BUILD)/lib/libcriu.a $(BUILD)/lib/criu.pc

$(BUILD)/lib/%.o: lib/%.c Makefile | $(PB_C)
	$(if $(Q),@echo "  CC    $<")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LIB_FLAGS) $(WARN) -MMD -MP -c -o $@ $<

$(BUILD)/lib/rpc.pb-c.o: $(PB_C)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LIB_FLAGS) -w -c -o $@ $(BUILD)/images/rpc.pb-c.c

$(SO): $(LIB_O) lib/libcriu.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(LIB_FLAGS) $(LDFLAGS) -shared -Wl,-soname,libcriu.so.$(SO_VERSION) -Wl,--version-script=lib/libcriu.map \
		-Wl,-z,relro -Wl,-z,now $(if $(SANITIZE),,-Wl,-z,defs) -o $@ $(LIB_O) $(shell pkg-config --libs libprotobuf-c)

$(SO_LINKS): $(SO)
	$(Q)ln -sf libcriu.so.$(SO_VERSION).0 $@

$(BUILD)/lib/libcriu.a: $(LIB_O)
	$(Q)rm -f $@
	$(Q)$(LD) -r -o $(BUILD)/lib/libcriu-whole.o $(LIB_O)
	$(Q)objcopy --localize-hidden $(BUILD)/lib/libcriu-whole.o
	$(Q)$(AR) rcs $@ $(BUILD)/lib/libcriu-whole.o

$(BUILD)/lib/criu.pc: lib/criu.pc.in VERSION Makefile FORCE
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' $< >$@.new
	$(Q)cmp -s $@ $@.new && rm $@.new || mv $@.new $@

# Once with the shared library and once with the archive.
test/lib/client: test/lib/client.c lib
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -pthread -Iinclude $(SANITIZE_FLAGS) -o $@ $< \
		-L$(BUILD)/lib -lcriu -Wl,-rpath,$(abspath $(BUILD)/lib)

test/lib/client-static: test/lib/client.c lib
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -pthread -Iinclude $(SANITIZE_FLAGS) -o $@ $< \
		$(BUILD)/lib/libcriu.a $(shell pkg-config --libs libprotobuf-c)

.PHONY: libtest
libtest: all test/lib/client test/lib/client-static
	$(Q)test/lib/run

unit: $(UNIT)
	$(Q)$(UNIT)

cycle: all test/mk/mk-static mk32
	$(Q)test/cycle/run -j 2

# Which lines of each module the unit tests, cycles and bad input reach. SUITES= for others.
SUITES	?= test/cycle/run,-n,1 test/bad/run test/unix/run test/inherit/run test/rpc/run test/snapshot/run
coverage:
	$(Q)$(MAKE) -s COVERAGE=1 all build-coverage/unit test/mk/mk-static mk32
	$(Q)scripts/coverage build-coverage criu/criu-coverage $(SUITES)

# Cycles on another kernel, in a virtual machine: VM=--smoke for some of them; KERNEL=, see test/vm/run.
VM	?=
vm: all test/mk/mk-static mk32
	$(Q)scripts/install-deps --vm
	$(Q)KERNEL=$(KERNEL) test/vm/run $(VM)

interop: all
	$(Q)test/interop/run

test/kill/victim: test/kill/victim.c test/kill/hold.c $(wildcard test/kill/*.h)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -pthread -Wall -o $@ $(filter %.c,$^)

test/kill/victim32: test/kill/victim.c test/kill/hold32.c $(wildcard test/kill/*.h)
	$(Q)$(CC) -m32 -std=gnu11 -D_GNU_SOURCE -O2 -g -pthread -w -o $@ $(filter %.c,$^)

test/kill/kill: test/kill/kill.c test/kill/tracer.c test/kill/watch.c $(LIB) $(wildcard test/kill/*.h)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.c %.a,$^) $(LIBS)

# The whole of it takes minutes; KILL=--quick is what scripts/test runs.
KILL	?=
kill: test/kill/kill test/kill/victim mk32
	$(Q)test/kill/kill $(KILL)

test/fault/inject: test/fault/inject.c
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -o $@ $<

test/fault/mover: test/fault/mover.c
	$(Q)$(CC) -std=gnu11 -O2 -g -pthread -Wall -o $@ $<

# Faults at every place: FAULT=--long for the figures of RELIABILITY.md (an hour), rows by name.
FAULT	?=
fault: all test/fault/inject test/fault/mover
	$(Q)test/fault/run $(FAULT)

test/bench/target: test/bench/target.c
	$(Q)$(CC) -O2 -g -pthread -Wall -o $@ $<

bench: all test/bench/target
	$(Q)test/bench/run

# Each corpus runs as a plain test; with clang's libFuzzer `make fuzz` looks for new inputs.
FUZZERS	:= $(patsubst test/fuzz/fuzz_%.c,%,$(wildcard test/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60

$(BUILD)/fuzz/replay-%: test/fuzz/fuzz_%.c test/fuzz/replay.c $(LIB)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -I$(BUILD)/images $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

fuzz-replay: $(FUZZERS:%=$(BUILD)/fuzz/replay-%)
	$(Q)failed=0; for f in $(FUZZERS); do \
		$(BUILD)/fuzz/replay-$$f test/fuzz/corpus/$$f || { echo "FAIL fuzz corpus $$f"; failed=$$((failed + 1)); }; \
	done; \
	echo "fuzz-replay: $$(($(words $(FUZZERS)) - failed)) passed, $$failed failed, 0 skipped"; [ $$failed = 0 ]

$(BUILD)/fuzz/fuzz-%: test/fuzz/fuzz_%.c $(SRC) $(PB_C) $(BUILD)/version.h
	$(Q)mkdir -p $(@D)
	$(Q)clang $(CPPFLAGS) -I$(BUILD) -I$(BUILD)/images -std=gnu11 -O1 -g -w -fsanitize=fuzzer,address,undefined \
		-o $@ $(filter %.c,$^) $(ASM) $(LIBS)

fuzz: $(FUZZERS:%=$(BUILD)/fuzz/fuzz-%)
	$(Q)for f in $(FUZZERS); do \
		mkdir -p $(BUILD)/fuzz/found-$$f; \
		$(BUILD)/fuzz/fuzz-$$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -print_final_stats=0 \
			$(BUILD)/fuzz/found-$$f test/fuzz/corpus/$$f || exit 1; \
	done

# Each check is one test of the counts.
LINTS	:= format layers globals docs spdx
lint: all
	$(Q)failed=0; skipped=0; for l in $(LINTS); do \
		scripts/check-$$l $(LIB); rc=$$?; \
		if [ $$rc = 77 ]; then skipped=$$((skipped + 1)); \
		elif [ $$rc != 0 ]; then echo "FAIL lint $$l"; failed=$$((failed + 1)); fi; \
	done; \
	echo "lint: $$(($(words $(LINTS)) - failed - skipped)) passed, $$failed failed, $$skipped skipped"; \
	[ $$failed = 0 ]

check: lint unit fuzz-replay
	$(Q)test/cycle/run -j 2 idle regs-8 files tree

# What is installed: mode, file, directory. Links of the library are made besides.
INSTALLED := \
	755,criu/criu,$(SBINDIR) \
	755,$(SO),$(LIBDIR) \
	644,$(BUILD)/lib/libcriu.a,$(LIBDIR) \
	644,$(BUILD)/lib/criu.pc,$(LIBDIR)/pkgconfig \
	644,include/criu/criu.h,$(INCLUDEDIR)/criu \
	644,include/criu/functions.h,$(INCLUDEDIR)/criu \
	644,Documentation/criu.8,$(MANDIR)/man8 \
	644,Documentation/criu-service.8,$(MANDIR)/man8 \
	644,Documentation/libcriu.3,$(MANDIR)/man3 \
	644,scripts/completion/criu,$(COMPLETIONDIR) \
	644,scripts/systemd/criu.socket,$(UNITDIR) \
	644,$(BUILD)/criu.service,$(UNITDIR)
PLACES	:= $(foreach i,$(INSTALLED),$(lastword $(subst $(comma), ,$i))/$(notdir $(word 2,$(subst $(comma), ,$i)))) \
	  $(SO_LINKS:$(BUILD)/lib/%=$(LIBDIR)/%)

$(BUILD)/criu.service: scripts/systemd/criu.service.in Makefile FORCE
	$(Q)sed 's|@SBINDIR@|$(SBINDIR)|' $< >$@

define install_row
install -D -m $(word 1,$1) $(word 2,$1) $(DESTDIR)$(word 3,$1)/$(notdir $(word 2,$1))

endef

install: all $(BUILD)/criu.service
	$(foreach i,$(INSTALLED),$(call install_row,$(subst $(comma), ,$i)))
	for l in $(notdir $(SO_LINKS)); do ln -sf $(notdir $(SO)) $(DESTDIR)$(LIBDIR)/$$l || exit 1; done

uninstall:
	rm -f $(PLACES:%=$(DESTDIR)%)

test/mk/mk: $(wildcard test/mk/*.c test/mk/*.h)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -O2 -g -pthread -Wall -o $@ $(filter %.c,$^)

test/mk/mk-static: $(wildcard test/mk/*.c test/mk/*.h)
	$(Q)$(CC) -O2 -g -pthread -Wall -static -o $@ $(filter %.c,$^)

# The same for an i386, where the compiler makes such programs. Some factories have more than that can
# hold; they are for others only.
test/mk/mk32: $(wildcard test/mk/*.c test/mk/*.h)
	$(Q)$(CC) -m32 -O2 -g -pthread -w -D_FILE_OFFSET_BITS=64 -no-pie -o $@ $(filter %.c,$^)

.PHONY: mk32
mk32:
	$(Q)if echo 'int main(void) { return 0; }' | $(CC) -m32 -x c -o /dev/null - 2>/dev/null; then \
		$(MAKE) -s test/mk/mk32 test/kill/victim32; fi

clean:
	$(Q)rm -rf build build-sanitize build-coverage criu/criu criu/criu-sanitize criu/criu-coverage test/mk/mk test/mk/mk-static test/mk/mk32 test/bench/target test/kill/kill \
		test/kill/victim test/kill/victim32 test/lib/client test/lib/client-static test/fault/inject test/fault/mover

-include $(LIB_O:.o=.d) $(OBJ:.o=.d) $(TESTS:%.c=$(BUILD)/%.d) $(BUILD)/criu/main.d
