target_scsi_SRCS := \
 target/scsi/sense.c \
 target/scsi/server.c \
 target/scsi/order.c \
 target/scsi/port.c \
 target/scsi/pr.c \
 target/scsi/state.c \
 target/scsi/alua.c \
 target/scsi/atomic.c \
 target/scsi/sanitize.c \
 target/scsi/xcopy.c \
 target/scsi/provisioning.c \
 target/scsi/threshold.c \
 target/scsi/mmc.c \
 target/scsi/table.c \
 target/scsi/spc.c \
 target/scsi/mode.c \
 target/scsi/sbc.c
target_reactor_SRCS := \
 target/reactor/pool.c \
 target/reactor/reactor.c
target_iscsi_SRCS := \
 target/iscsi/pdu.c \
 target/iscsi/crc.c \
 target/iscsi/text.c \
 target/iscsi/negotiate.c \
 target/iscsi/chap.c \
 target/iscsi/access.c \
 target/iscsi/auth.c \
 target/iscsi/answer.c \
 target/iscsi/throttle.c \
 target/iscsi/portal.c \
 target/iscsi/conn.c \
 target/iscsi/login.c \
 target/iscsi/full.c \
 target/iscsi/command.c \
 target/iscsi/session.c \
 target/iscsi/socket.c

PROGS += vdiskd
vdiskd_SRCS := \
 target/main.c \
 target/export.c \
 target/export_access.c \
 target/daemon.c \
 target/served.c \
 target/unit.c \
 target/service.c \
 target/config.c \
 target/config_directives.c \
 target/config_file.c \
 target/sandbox.c \
 target/log.c \
 $(target_reactor_SRCS) \
 $(target_scsi_SRCS) \
 $(target_iscsi_SRCS)
vdiskd_PKGS := libseccomp libcrypto

tests/unit/iscsi_SRCS := target/log.c $(target_reactor_SRCS) $(target_scsi_SRCS) \
 $(target_iscsi_SRCS)
tests/fuzz/login_SRCS := $(tests/unit/iscsi_SRCS)
tests/fuzz/login_LIBS := -lcrypto
tests/unit/vdiskd_config_SRCS := target/log.c target/config.c \
 target/config_directives.c target/config_file.c target/iscsi/access.c \
 target/iscsi/chap.c target/iscsi/text.c
tests/unit/vdiskd_config_PKGS := libcrypto
tests/fuzz/vdiskd_config_SRCS := $(tests/unit/vdiskd_config_SRCS)
tests/fuzz/vdiskd_config_LIBS := -lcrypto
tests/unit/iscsi_access_SRCS := $(tests/unit/iscsi_SRCS)
tests/unit/iscsi_access_PKGS := libcrypto
tests/unit/scsi_SRCS := target/log.c $(target_reactor_SRCS) $(target_scsi_SRCS)
tests/unit/iscsi_PKGS := libcrypto
tests/unit/pool_SRCS := target/reactor/pool.c
tests/unit/scsi_pr_SRCS := $(tests/unit/scsi_SRCS)
tests/unit/scsi_order_SRCS := $(tests/unit/scsi_SRCS)
tests/unit/scsi_threshold_SRCS := $(tests/unit/scsi_SRCS)
tests/fuzz/scsi_SRCS := $(tests/unit/scsi_SRCS)
tests/fuzz/iscsi_SRCS := $(tests/unit/iscsi_SRCS)
tests/fuzz/iscsi_LIBS := -lcrypto
