/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* chap.c - see chap.h */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "core/compiler.h"
#include "target/iscsi/chap.h"
#include "target/log.h"

/* The strongest first: that is the order of choice. */
static struct {
	enum iscsi_chap_digest number;
	const char *name;	/* in the configuration */
	const char *evp_name;
	size_t size;
	EVP_MD *md;		/* owned, for the life of the process */
} digests[] = {
	{ ISCSI_CHAP_SHA3_256, "sha3-256", "SHA3-256", 32, NULL },
	{ ISCSI_CHAP_SHA256, "sha256", "SHA256", 32, NULL },
	{ ISCSI_CHAP_SHA1, "sha1", "SHA1", 20, NULL },
	{ ISCSI_CHAP_MD5, "md5", "MD5", 16, NULL },
};

bool iscsi_chap_init(const char **missing)
{
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
		if (!digests[i].md)
			digests[i].md = EVP_MD_fetch(NULL, digests[i].evp_name, NULL);
		if (!digests[i].md) {
			*missing = digests[i].name;
			return false;
		}
	}
	return true;
}

enum iscsi_chap_digest iscsi_chap_digest_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++)
		if (!strcmp(digests[i].name, name))
			return digests[i].number;
	return 0;
}

size_t iscsi_chap_digest_size(enum iscsi_chap_digest digest)
{
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++)
		if (digests[i].number == digest)
			return digests[i].size;
	return 0;
}

/* Is the number a member of the comma-separated list? */
static bool list_has(const char *list, unsigned number)
{
	for (const char *s = list; ; s++) {
		size_t n = strcspn(s, ",");

		if (n == 1 && s[0] == (char)('0' + number))
			return true;
		s += n;
		if (!*s)
			return false;
	}
}

enum iscsi_chap_digest iscsi_chap_choose(const char *list, unsigned allowed)
{
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++)
		if (allowed >> digests[i].number & 1 && digests[i].md &&
		    list_has(list, digests[i].number))
			return digests[i].number;
	return 0;
}

size_t iscsi_chap_response(uint8_t out[ISCSI_CHAP_RESPONSE_MAX], enum iscsi_chap_digest digest,
			   uint8_t id, const void *secret, size_t secret_len,
			   const void *challenge, size_t challenge_len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned len = 0;
	bool ok = false;

	for (size_t i = 0; ctx && i < ARRAY_SIZE(digests); i++)
		if (digests[i].number == digest && digests[i].md)
			ok = EVP_DigestInit_ex(ctx, digests[i].md, NULL) &&
			     EVP_DigestUpdate(ctx, &id, 1) &&
			     EVP_DigestUpdate(ctx, secret, secret_len) &&
			     EVP_DigestUpdate(ctx, challenge, challenge_len) &&
			     EVP_DigestFinal_ex(ctx, out, &len);
	EVP_MD_CTX_free(ctx);	/* wipes what it holds */
	return ok ? len : 0;
}

bool iscsi_chap_equal(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}

void iscsi_chap_random(void *buf, size_t len)
{
#ifdef VD_FUZZING
	memset(buf, 'r', len);	/* the same input, the same run */
	return;
#endif
	if (getrandom(buf, len, 0) != (ssize_t)len)
		fatalx("no random numbers: %s", strerror(errno));
}

/* ---- binary values ---- */

/* An odd number of digits has a leading zero that is not written. */
static int decode_hex(uint8_t *out, size_t size, const char *digits)
{
	size_t n = strlen(digits), len = n / 2 + n % 2;

	if (n == 0)
		return -EINVAL;
	if (len > size)
		return -E2BIG;
	memset(out, 0, len);
	for (size_t i = 0; i < n; i++) {
		int v = vd_hex_digit(digits[i]);
		size_t at = i + n % 2;

		if (v < 0)
			return -EINVAL;
		out[at / 2] = (uint8_t)(out[at / 2] | (at % 2 ? v : v << 4));
	}
	return (int)len;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648, 4; with all of its padding, and nothing in the bits that are left over */
static int decode_base64(uint8_t *out, size_t size, const char *digits)
{
	size_t n = strlen(digits), pad = 0, len = 0;
	uint32_t bits = 0;
	unsigned n_bits = 0;

	if (n == 0 || n % 4)
		return -EINVAL;
	while (pad < 2 && digits[n - 1 - pad] == '=')
		pad++;
	if (n / 4 * 3 - pad > size)
		return -E2BIG;
	for (size_t i = 0; i < n - pad; i++) {
		int v = base64_digit(digits[i]);

		if (v < 0)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)v;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			out[len++] = (uint8_t)(bits >> n_bits);
		}
	}
	return bits & ((1u << n_bits) - 1) ? -EINVAL : (int)len;
}

int iscsi_binary_decode(uint8_t *out, size_t size, const char *text)
{
	if (text[0] != '0')
		return -EINVAL;
	if (text[1] == 'x' || text[1] == 'X')
		return decode_hex(out, size, text + 2);
	if (text[1] == 'b' || text[1] == 'B')
		return decode_base64(out, size, text + 2);
	return -EINVAL;
}

void iscsi_binary_encode(char *out, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = bytes;

	*out++ = '0';
	*out++ = 'x';
	for (size_t i = 0; i < len; i++) {
		*out++ = digits[b[i] >> 4];
		*out++ = digits[b[i] & 15];
	}
	*out = '\0';
}
