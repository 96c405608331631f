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
 formats/qcow2/amend.c \
 formats/vmdk/header.c \
 formats/vmdk/descriptor.c \
 formats/vmdk/open.c \
 formats/vmdk/table.c \
 formats/vmdk/map.c \
 formats/vmdk/flush.c \
 formats/vmdk/stream.c \
 formats/vmdk/codec.c \
 formats/vmdk/create.c \
 formats/vmdk/check.c
