/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * args.c - command lines that show no secrets; see args.h
 *
 * The memory file has all arguments, each with its NUL; the number of its descriptor
 * is in the environment, which only the user's own processes can read, and which says
 * nothing but that number.
 */
#include "core/args.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/driver.h"

#define VARIABLE	"VDISK_ARGUMENTS"
#define BYTES_MAX	(4u << 20)	/* more than the kernel takes for all of them */

static bool has_secret(const char *text)
{
	AUTO_FREE char *shown = strdup(text);

	if (!shown)
		return true;
	vdisk_redact(shown);
	return strcmp(shown, text) != 0;
}

/* In place; nothing of what is cut off stays behind the end. */
static void redact_all(char *text)
{
	size_t len = strlen(text), left;

	vdisk_redact(text);
	left = strlen(text);
	memset(text + left, 0, len - left);
}

/* ---- the one that starts a program ---- */

static int write_all(int fd, const char *const *argv)
{
	for (; *argv; argv++) {
		size_t len = strlen(*argv) + 1;

		if (write(fd, *argv, len) != (ssize_t)len)
			return -1;
	}
	return 0;
}

int vd_execv(const char *path, const char *const *argv)
{
	AUTO_FREE char **shown = NULL;
	AUTO_CLOSE int fd = -1;
	bool secret = false;
	char number[16];
	size_t n = 0;
	int error;

	for (; argv[n]; n++)
		secret |= has_secret(argv[n]);
	if (!secret) {
		unsetenv(VARIABLE);
		return execv(path, (char *const *)(uintptr_t)argv);
	}
	fd = memfd_create("arguments", 0);
	shown = calloc(n + 1, sizeof(*shown));
	if (fd < 0 || !shown || write_all(fd, argv) < 0)
		return -1;
	snprintf(number, sizeof(number), "%d", fd);
	if (setenv(VARIABLE, number, 1) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		shown[i] = strdup(argv[i]);
		if (!shown[i])
			return -1;
		vdisk_redact(shown[i]);
	}
	execv(path, shown);
	error = errno;
	for (char **s = shown; *s; s++)
		free(*s);
	errno = error;
	return -1;
}

/* ---- the one that was started ---- */

/* All of the file in memory of our own, and the file closed; NULL: there is none. */
static char *read_file(const char *number, size_t *size)
{
	struct stat st;
	char *end, *text = NULL;
	long fd = strtol(number, &end, 10);

	if (end == number || *end || fd < 3 || fd > INT32_MAX || fstat((int)fd, &st) < 0)
		return NULL;
	if (S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= BYTES_MAX)
		text = malloc((size_t)st.st_size);
	if (text && pread((int)fd, text, (size_t)st.st_size, 0) != st.st_size) {
		free(text);
		text = NULL;
	}
	close((int)fd);
	*size = (size_t)st.st_size;
	return text;
}

/* Cut into arguments, each the same as the one that is shown, but for secrets. */
static bool belongs(char **out, int argc, char **argv, char *text, size_t size)
{
	for (int i = 0; i < argc; i++) {
		size_t len = strnlen(text, size);
		AUTO_FREE char *shown = strndup(text, len);

		if (len == size || !shown)
			return false;
		vdisk_redact(shown);
		if (strcmp(shown, argv[i]))
			return false;
		out[i] = text;
		text += len + 1;
		size -= len + 1;
	}
	return !size;
}

char **vd_take_args(int argc, char **argv)
{
	const char *number = getenv(VARIABLE);
	AUTO_FREE char **args = calloc((size_t)argc + 1, sizeof(*args));
	AUTO_FREE char *text = NULL;
	size_t size = 0;

	if (!args)
		return NULL;
	if (number) {
		text = read_file(number, &size);
		unsetenv(VARIABLE);
		if (!text || !belongs(args, argc, argv, text, size)) {
			errno = EINVAL;
			return NULL;
		}
		(void)STEAL(text);	/* the arguments' for good */
		return STEAL(args);
	}
	for (int i = 0; i < argc; i++) {
		args[i] = argv[i];
		if (!has_secret(argv[i]))
			continue;
		args[i] = strdup(argv[i]);
		if (!args[i])
			return NULL;
		redact_all(argv[i]);
	}
	return STEAL(args);
}
