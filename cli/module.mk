PROGS += vdisk
vdisk_SRCS := \
 cli/main.c \
 cli/common.c
vdisk_PKGS := jansson smartcols
