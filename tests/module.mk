UNIT_TESTS += $(patsubst %.c,%,$(wildcard tests/unit/*.c))
FUZZERS += $(patsubst %.c,%,$(wildcard tests/fuzz/*.c))

# the disk that logs and fails, for the tests of crashes and faults
tests/unit/crash_SRCS := tests/lib/memlog.c
tests/unit/faults_SRCS := tests/lib/memlog.c
tests/unit/lvm_edit_SRCS := tests/lib/memlog.c
tests/unit/faults_LDFLAGS := -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc

# the initiator of the benchmarks and of the tests with many sessions
TOOLS += tests/tools/iscsi-load
tests/tools/iscsi-load_SRCS := tests/tools/iscsi-load.c
# what the benchmark measures a target by
TOOLS += tests/tools/bare-server
tests/tools/bare-server_SRCS := tests/tools/bare-server.c

# verified requests to any disk
TOOLS += tests/tools/disk-load
tests/tools/disk-load_SRCS := tests/tools/disk-load.c

# the block device without a guest
TOOLS += tests/tools/blk-load
tests/tools/blk-load_SRCS := tests/tools/blk-load.c vmm-lite/virtio/virtq.c vmm-lite/virtio/blk.c \
 vmm-lite/virtio/limiter.c

# what the filters of system calls let through
TOOLS += tests/tools/filters
tests/tools/filters_SRCS := tests/tools/filters.c vmm-lite/sandbox.c vmm-lite/userns.c vmm-lite/vhost/sandbox.c vmm-lite/terminal.c \
 vmm-lite/log.c
tests/tools/filters_PKGS := libseccomp

# the parsers of programs, which are in no library
tests/unit/vmfile_SRCS := cli/vmfile.c cli/vmfile_xen.c cli/disk_words.c vmm-lite/words.c
tests/unit/words_SRCS := cli/disk_words.c vmm-lite/words.c
tests/unit/try_guest_SRCS := cli/try_guest.c
tests/unit/ext_crc_SRCS := cli/ext_crc.c
tests/fuzz/vmfile_SRCS := cli/vmfile.c cli/vmfile_xen.c cli/disk_words.c vmm-lite/words.c
tests/unit/journal_crash_SRCS := tests/lib/memlog.c
