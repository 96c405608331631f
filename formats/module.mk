LIB_SRCS += \
 formats/list.c \
 formats/raw.c \
 formats/qcow2/header.c
