PROGS += vdisk
vdisk_SRCS := cli/main.c
vdisk_PKGS := jansson smartcols
