LIB_SRCS += \
 formats/list.c \
 formats/raw.c \
 formats/qcow2/header.c \
 formats/qcow2/check.c \
 formats/qcow2/counts.c \
 formats/qcow2/repair.c \
 formats/qcow2/cache.c \
 formats/qcow2/refcount.c \
 formats/qcow2/flush.c \
 formats/qcow2/map.c \
 formats/qcow2/open.c \
 formats/qcow2/codec.c \
 formats/qcow2/snapshot.c \
 formats/qcow2/bitmap.c \
 formats/qcow2/create.c \
 formats/qcow2/resize.c \
 formats/qcow2/amend.c
