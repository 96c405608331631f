# One Makefile, one dependency graph.  Each directory contributes a module.mk
# that only fills in lists; all rules live here.
#
#   make                  libvdisk and the three programs, in build/
#   make demo             a real guest disk through its whole life
#   make check            all the tests (under 25 minutes on two processors)
#   make check-long       the slow ones too
#   make lint fuzz bench cover install deps deb
#
#   O=DIR                 build elsewhere        V=1        show the commands
#   SAN=address,undefined sanitizers             WERROR=1   warnings are errors
#   CC=clang              another compiler       T=pattern  tests whose name has it

VERSION := 0.1.0
SOVERSION := 0
SAN     ?=
comma   := ,
empty   :=
space   := $(empty) $(empty)
O       ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBDIR  ?= $(PREFIX)/lib
LIBEXECDIR ?= $(PREFIX)/libexec/vdisk
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR ?= $(PREFIX)/lib/systemd/system

.DEFAULT_GOAL := all

CFLAGS  ?= -O2 -g
is_clang := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -1))
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
           -Wold-style-definition -Wundef -Wvla -Wwrite-strings -Wcast-qual \
           -Wpointer-arith -Wformat=2 -Wimplicit-fallthrough -Wconversion \
           -Wno-sign-conversion -Wno-missing-field-initializers
WARN    += $(if $(is_clang),-Wno-gnu-statement-expression,-Wjump-misses-init -Wlogical-op)

# Packages that the library itself links.
PKGS    := liburing libdeflate libzstd zlib libisal blkid fdisk ext2fs com_err e2p \
           fuse3 libseccomp
# A program names more in NAME_PKGS (libseccomp, jansson, smartcols, openssl ...).
have_pkgs := $(shell pkg-config --exists $(PKGS) 2>/dev/null && echo yes)
PKG_CFLAGS := $(if $(have_pkgs),$(shell pkg-config --cflags $(PKGS) jansson smartcols))
PKG_LIBS   := $(if $(have_pkgs),$(shell pkg-config --libs $(PKGS)))

ALLC     = -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DVDISK_VERSION='"$(VERSION)"' \
           -DVDISK_LIBEXECDIR='"$(LIBEXECDIR)"' \
           -Ilibvdisk -I. $(WARN) $(if $(WERROR),-Werror) -fvisibility=hidden -fPIC -pthread \
           $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined -fno-omit-frame-pointer) \
           $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALLL     = -pthread $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)

V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $(2))

LIB_SRCS   :=
PROGS      :=
ALONE      :=
UNIT_TESTS :=
TOOLS      :=
FUZZERS    :=
MANPAGES   :=
MODULES := libvdisk formats cli target vmm-lite tests docs
include $(wildcard $(addsuffix /module.mk,$(MODULES)))

obj  = $(patsubst %.S,$(O)/obj/%.o,$(patsubst %.c,$(O)/obj/%.o,$(1)))
OBJS := $(call obj,$(LIB_SRCS))
LIB  := $(O)/libvdisk.a
SO   := $(O)/libvdisk.so.$(SOVERSION)

all: $(LIB) $(SO) $(addprefix $(O)/,$(PROGS) $(ALONE) $(TOOLS))

$(O)/obj/%.o: %.c $(O)/.flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLC) $($(<:.c=)_CFLAGS) -MMD -MP -c $< -o $@

$(O)/obj/%.o: %.S $(O)/.flags
	$(call say,AS,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLC) -MMD -MP -c $< -o $@

# Rebuild everything when compiler or flags change, and only then.
$(O)/.flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(subst ','\'',$(ALLC))' | cmp -s - $@ || \
	 printf '%s\n' '$(CC) $(subst ','\'',$(ALLC))' > $@

$(LIB): $(OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@; $(AR) rcs $@ $^

$(SO): $(OBJS) libvdisk/libvdisk.map
	$(call say,LD,$@)
	$(Q)$(CC) $(ALLL) -shared -Wl,-soname,$(@F) -Wl,--version-script=libvdisk/libvdisk.map \
	 $(OBJS) $(PKG_LIBS) -o $@
	$(Q)ln -sf $(@F) $(O)/libvdisk.so

# name: NAME_SRCS, plus the library, plus NAME_PKGS and NAME_LIBS
define prog_rule
ALLOBJS += $(call obj,$($(1)_SRCS))
$(O)/$(1): $(call obj,$($(1)_SRCS)) $(LIB)
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(ALLL) $$($(1)_LDFLAGS) $(call obj,$($(1)_SRCS)) $$(LIB) $$($(1)_LIBS) \
	 $$(if $$($(1)_PKGS),$$$$(pkg-config --libs $$($(1)_PKGS))) $$(PKG_LIBS) $$(LDLIBS) -o $$@
endef
$(foreach p,$(PROGS) $(TOOLS),$(eval $(call prog_rule,$(p))))
# a unit test is tests/unit/NAME.c (and NAME_SRCS, if it needs more)
$(foreach t,$(UNIT_TESTS),$(eval $(t)_SRCS += $(t).c) $(eval $(t)_PKGS += cmocka) \
 $(eval $(call prog_rule,$(t))))

# NAME without the library or sanitizers: NAME_SRCS, NAME_ALONE its flags
define alone_rule
$(O)/$(1): $($(1)_SRCS) $(O)/.flags
	$$(call say,ALONE,$$@)
	$$(Q)$$(CC) -std=gnu17 -D_GNU_SOURCE -O2 $$(WARN) $$(if $$(WERROR),-Werror) -I. \
	 -fvisibility=hidden $$($(1)_ALONE) $$(filter %.c,$$^) -o $$@
endef
$(foreach p,$(ALONE),$(eval $(call alone_rule,$(p))))

unit-tests: $(addprefix $(O)/,$(UNIT_TESTS) $(TOOLS))

# ---- tests ----

SAN_O := $(O)-san
FUZZ_O := $(O)-fuzz
FUZZ_SECONDS ?= 24
# the check says whether a change is good, the same way each time; looking for what nobody
# has found yet, from another seed each time, is for check-long and fuzz
FUZZ_SEED ?= 1

check: deps
	$(Q)$(MAKE) WERROR=1 all
	$(Q)$(MAKE) WERROR=1 headers
	$(Q)$(MAKE) WERROR=1 O=$(SAN_O) SAN=address,undefined CFLAGS='-O1 -g' all unit-tests
	$(Q)$(MAKE) fuzzers
	$(Q)O=$(O) SAN_O=$(SAN_O) FUZZ_O=$(FUZZ_O) FUZZ_SECONDS=$(FUZZ_SECONDS) \
	 FUZZ_SEED=$(FUZZ_SEED) tests/run $(if $(T),-t '$(T)')

check-long: export LONG := 1
check-long: FUZZ_SECONDS := 600
check-long: FUZZ_SEED := 0
check-long: check

# every public header must compile alone, as C and as C++
headers:
	$(Q)$(CC) -std=c17 -Wall -Wextra -Werror -fsyntax-only -x c libvdisk/vdisk.h
	$(Q)$(CXX) -std=c++17 -Wall -Wextra -Werror -fsyntax-only -x c++ libvdisk/vdisk.h

# libFuzzer: tests/fuzz/NAME.c, always clang with sanitizers, in a tree of its own
FUZZ_CC ?= clang-14
fuzzers:
	$(Q)$(MAKE) O=$(FUZZ_O) CC='$(FUZZ_CC)' SAN=address,undefined \
	 CFLAGS='-O1 -g -fsanitize=fuzzer-no-link -DVD_FUZZING' fuzz-build
fuzz-build: $(foreach f,$(FUZZERS),$(O)/$(f))
define fuzz_rule
$(O)/$(1): $(O)/obj/$(1).o $(call obj,$($(1)_SRCS)) $(LIB)
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(ALLL) -fsanitize=fuzzer $$^ $$($(1)_LIBS) $$(PKG_LIBS) $$(LDLIBS) -o $$@
ALLOBJS += $(O)/obj/$(1).o
endef
$(foreach f,$(FUZZERS),$(eval $(call fuzz_rule,$(f))))
fuzz: fuzzers
	$(Q)FUZZ_O=$(FUZZ_O) FUZZ_SECONDS=$(FUZZ_SECONDS) O=$(O) tests/run -t fuzz/

demo: deps
	$(Q)$(MAKE) all
	$(Q)O=$(O) tests/demo

bench: all
	$(Q)O=$(O) tests/bench/run $(if $(T),'$(T)')

deps:
	$(Q)./deps

# ---- hygiene ----

LINT_C = $(LIB_SRCS) $(sort $(foreach p,$(PROGS),$($(p)_SRCS)))
SHELL_FILES = $(shell git ls-files | xargs grep -lE '^\#!.*\b(ba)?sh\b' 2>/dev/null)
# clang-tidy takes its time: what it has passed it is not asked again until the file, one of
# its headers or the checks change
TIDIED = $(patsubst %.c,$(O)/lint/%.ok,$(filter %.c,$(LINT_C)))
$(O)/lint/%.ok: %.c $(O)/obj/%.o .clang-tidy
	$(call say,TIDY,$<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(LINT_FLAGS) $($(<:.c=)_CFLAGS) 2>/dev/null
	@touch $@
# what only gcc knows would be a warning of its own
LINT_FLAGS = $(filter-out -W% -fsanitize=% -fno-sanitize%,$(ALLC)) \
             -Wno-gnu-variable-sized-type-not-at-end
tidied: $(TIDIED)
lint:
	$(Q)status=0; $(MAKE) -k -j$$(nproc) tidied || status=1; \
	 ./tests/lint $(filter %.c,$(LINT_C)) -- $(filter -D% -I%,$(ALLC)) || status=1; exit $$status

cover:
	$(Q)$(MAKE) O=$(O)-cover CFLAGS='-O0 -g --coverage' LDFLAGS=--coverage all unit-tests
	$(Q)O=$(O)-cover SAN_O=$(O)-cover tests/run -t 'unit/'
	$(Q)tests/cover $(O)-cover

$(O)/libvdisk.pc: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: libvdisk' \
	 'Description: any guest disk, opened, mapped and moved' 'Version: $(VERSION)' \
	 'Requires.private: $(PKGS)' 'Cflags: -I$(INCDIR)' 'Libs: -L$(LIBDIR) -lvdisk' > $@

install: all $(O)/libvdisk.pc
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR) $(DESTDIR)$(BINDIR) \
	 $(DESTDIR)$(SBINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(COMPDIR)
	install -m644 $(LIB) $(DESTDIR)$(LIBDIR)
	install -m755 $(SO) $(DESTDIR)$(LIBDIR)
	ln -sf $(notdir $(SO)) $(DESTDIR)$(LIBDIR)/libvdisk.so
	install -m644 $(O)/libvdisk.pc $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m644 libvdisk/vdisk.h $(DESTDIR)$(INCDIR)
	install -m755 $(O)/vdisk $(DESTDIR)$(BINDIR)
	$(if $(filter vdiskd,$(PROGS)),install -m755 $(O)/vdiskd $(DESTDIR)$(SBINDIR))
	$(foreach p,$(filter-out vdisk vdiskd,$(PROGS)) $(ALONE),install -m755 $(O)/$(p) $(DESTDIR)$(LIBEXECDIR);)
	$(foreach m,$(MANPAGES),install -Dm644 $(m) $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m));)
	install -d $(DESTDIR)$(UNITDIR)
	sed 's,@SBINDIR@,$(SBINDIR),' packaging/vdiskd.service > $(DESTDIR)$(UNITDIR)/vdiskd.service
	$(if $(wildcard docs/vdisk.bash),install -m644 docs/vdisk.bash $(DESTDIR)$(COMPDIR)/vdisk)

deb: all
	$(Q)packaging/deb $(O) $(VERSION)

clean:
	rm -rf $(O) $(SAN_O) $(FUZZ_O) $(O)-cover

-include $(OBJS:.o=.d) $(ALLOBJS:.o=.d)
.PHONY: all unit-tests check check-long headers fuzzers fuzz-build fuzz demo bench deps lint tidied cover \
 install deb clean FORCE
.DELETE_ON_ERROR:
