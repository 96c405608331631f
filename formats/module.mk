LIB_SRCS += \
 formats/list.c \
 formats/raw.c \
 formats/qcow2/header.c \
 formats/qcow2/check.c \
 formats/qcow2/counts.c \
 formats/qcow2/repair.c
