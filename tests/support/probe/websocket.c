/* As much of RFC 6455 as an echo needs: the handshake's token, frames unmasked and sent back, ping and close
 * answered. */
#define _GNU_SOURCE
#include "probe.h"

#include <stdio.h>
#include <string.h>

/* ---- SHA-1 (FIPS 180-4) of one short message ---- */

static uint32_t rotate(uint32_t v, unsigned by)
{
    return v << by | v >> (32 - by);
}

static void sha1_block(uint32_t h[5], const unsigned char *p)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
               p[4 * i + 3];
    for (size_t i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (size_t i = 0; i < 80; i++) {
        uint32_t f = i < 20              ? (b & c) | (~b & d)
                     : i < 40 || i >= 60 ? b ^ c ^ d
                                         : (b & c) | (b & d) | (c & d);
        uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
        uint32_t t = rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

static void sha1(const char *text, size_t n, unsigned char out[20])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char block[128] = {0}; /* 119 bytes of text at most */
    size_t all = n < 56 ? 64 : 128;
    memcpy(block, text, n);
    block[n] = 0x80;
    block[all - 2] = (unsigned char)(n * 8 >> 8);
    block[all - 1] = (unsigned char)(n * 8);
    for (size_t i = 0; i < all; i += 64)
        sha1_block(h, block + i);
    for (size_t i = 0; i < 20; i++)
        out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

void websocket_accept(const char *key, char out[32])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[120];
    unsigned char digest[21] = {0};
    int n = snprintf(text, sizeof(text), "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(text, (size_t)n, digest);
    for (size_t i = 0; i < 7; i++) {
        uint32_t v = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (size_t j = 0; j < 4; j++)
            out[4 * i + j] = letters[v >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

/* ---- frames ---- */

enum { OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10, MASK_BYTES = 4 };

static void send_frame(struct conn *c, unsigned char first, const char *p, size_t n)
{
    unsigned char head[10] = {first};
    size_t n_head = n < 126 ? 2 : n < 65536 ? 4 : 10;
    head[1] = (unsigned char)(n < 126 ? n : n < 65536 ? 126 : 127);
    for (size_t i = 2; i < n_head; i++)
        head[i] = (unsigned char)((uint64_t)n >> 8 * (n_head - 1 - i));
    say(c, head, n_head);
    say(c, p, n);
}

/* Length of the frame at p and of its head; false when it is not whole. */
static bool measure(const unsigned char *p, size_t n, size_t *n_head, size_t *n_payload)
{
    if (n < 2)
        return false;
    size_t more = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0;
    if (n < 2 + more)
        return false;
    uint64_t length = more ? 0 : p[1] & 127;
    for (size_t i = 0; i < more; i++)
        length = length << 8 | p[2 + i];
    *n_head = 2 + more + MASK_BYTES;
    *n_payload = (size_t)length;
    return length < IN_BYTES / 2 && n >= *n_head + length;
}

size_t websocket_echo(struct conn *c, const unsigned char *p, size_t n)
{
    static char plain[IN_BYTES / 2];
    size_t used = 0, n_head, n_payload;
    while (measure(p + used, n - used, &n_head, &n_payload)) {
        const unsigned char *frame = p + used, *mask = frame + n_head - MASK_BYTES;
        for (size_t i = 0; i < n_payload; i++)
            plain[i] = (char)(frame[n_head + i] ^ mask[i % 4]);
        unsigned op = frame[0] & 15;
        send_frame(c, op == OP_PING ? 0x80 | OP_PONG : frame[0], plain, n_payload);
        used += n_head + n_payload;
        if (op == OP_CLOSE) {
            c->close_after = true;
            end_answer(c);
        }
    }
    return used;
}
