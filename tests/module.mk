UNIT_TESTS += $(patsubst %.c,%,$(wildcard tests/unit/*.c))
FUZZERS += $(patsubst %.c,%,$(wildcard tests/fuzz/*.c))
