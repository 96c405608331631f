LIB_SRCS += \
 formats/list.c \
 formats/raw.c
