/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * chap.h - CHAP as RFC 7143, 12.1.3 has it: digests, and binary values in text
 *
 * Pure functions, but for iscsi_chap_random().  The exchange itself is in
 * login.c, the secrets are in struct iscsi_auth (access.h).
 */
#ifndef ISCSI_CHAP_H
#define ISCSI_CHAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISCSI_CHAP_CHALLENGE	32u	/* bytes of ours */
#define ISCSI_CHAP_BINARY_MAX	1024u	/* of anybody's, decoded */
#define ISCSI_CHAP_VALUE_MAX	(2u + 2 * ISCSI_CHAP_BINARY_MAX)	/* as text */
#define ISCSI_CHAP_RESPONSE_MAX	32u

/* the numbers that CHAP_A carries */
enum iscsi_chap_digest {
	ISCSI_CHAP_MD5 = 5,
	ISCSI_CHAP_SHA1 = 6,
	ISCSI_CHAP_SHA256 = 7,
	ISCSI_CHAP_SHA3_256 = 8,
};
#define ISCSI_CHAP_ALL (1u << ISCSI_CHAP_MD5 | 1u << ISCSI_CHAP_SHA1 | \
			1u << ISCSI_CHAP_SHA256 | 1u << ISCSI_CHAP_SHA3_256)

/*
 * Have the digests ready: before the sandbox, because libcrypto reads files when
 * it starts.  False if one is not there (a FIPS host has no MD5); @missing gets
 * its name.
 */
bool iscsi_chap_init(const char **missing);
/* "md5", "sha1", "sha256", "sha3-256"; 0: none of them */
enum iscsi_chap_digest iscsi_chap_digest_by_name(const char *name);
/* Length of its responses. */
size_t iscsi_chap_digest_size(enum iscsi_chap_digest digest);
/* The strongest of a CHAP_A list that is in @allowed (a bit for each number); 0: none. */
enum iscsi_chap_digest iscsi_chap_choose(const char *list, unsigned allowed);

/* digest(id, secret, challenge); its length, 0 if libcrypto failed */
size_t iscsi_chap_response(uint8_t out[ISCSI_CHAP_RESPONSE_MAX], enum iscsi_chap_digest digest,
			   uint8_t id, const void *secret, size_t secret_len,
			   const void *challenge, size_t challenge_len);
/* In a time that does not depend on the contents. */
bool iscsi_chap_equal(const void *a, const void *b, size_t len);
/* Fill with the system's randomness; the process ends if there is none. */
void iscsi_chap_random(void *buf, size_t len);

/* "0x" and hexadecimal or "0b" and Base64 digits (6.1); bytes, or -EINVAL, -E2BIG. */
int iscsi_binary_decode(uint8_t *out, size_t size, const char *text);
/* As hexadecimal; @out needs 2 * len + 3 bytes. */
void iscsi_binary_encode(char *out, const void *bytes, size_t len);

#endif
