/* Peers that do what no correct peer does. */
#include "tests/support/link_pair.h"

struct frame {
    const char *why;
    bool to_server;
    uint8_t type, flags;
    uint32_t stream;
    const char *payload;
    size_t n;
};

/* Stream A: opened by the client, unanswered; its direction has ended.  0 in the table stands for "stream A".
 */
enum { STREAM_A = 0xffffffff };

#define P(lit) lit, sizeof(lit) - 1

static const struct frame hostile[] = {
    {"unknown type", true, 0, 0, 0, P("")},
    {"unknown type", true, 14, 0, 0, P("")},
    {"handshake again", true, 1, 0, 0, P("DVTL\1\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0nnnnnnnnnnnnnnnn")},
    {"handshake again", true, 3, 0, 0, P("pppppppppppppppppppppppppppppppp")},
    {"reject to the server", true, 4, 0, 0, P("\1\0\0\0")},
    {"unknown flag", true, 10, 4, 0, P("12345678")},
    {"short ping", true, 10, 0, 0, P("1234567")},
    {"ping on a stream", true, 10, 0, 1 << 14, P("12345678")},
    {"window without stream", true, 8, 0, 0, P("\1\0\0\0")},
    {"window of nothing", true, 8, 0, STREAM_A, P("\0\0\0\0")},
    {"window past its bound", true, 8, 0, STREAM_A, P("\1\0\0\0")},
    {"huge window", true, 8, 0, STREAM_A, P("\377\377\377\377")},
    {"data after the end", true, 6, 0, STREAM_A, P("x")},
    {"trailers after the end", true, 7, 1, STREAM_A, P("")},
    {"stream opened twice", true, 5, 1, STREAM_A, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/")},
    {"stream without generation", true, 5, 1, 77, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/")},
    {"head cut off", true, 5, 1, 1 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET")},
    {"head without method", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0/")},
    {"head without target", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\0\0GET")},
    {"blank in method", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0G T/")},
    {"line end in target", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET\n")},
    {"unknown body", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\5\3\1\0GET/")},
    {"second head in fields", true, 5, 1, 2 << 14,
     P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/A: b\r\n\r\nGET / HTTP/1.1\r\n")},
    {"fields without end", true, 5, 1, 2 << 14, P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/A: b")},
    {"goaway with payload", true, 11, 0, 0, P("x")},
    {"report to the server", true, 13, 0, 0, P("{}")},
    {"control to the client", false, 12, 0, 0, P("{}")},
    {"welcome again", false, 2, 0, 0,
     P("12345678901234567890123456789012345678901234567890123456789012345678")},
    {"data before the head", false, 6, 0, STREAM_A, P("x")},
    {"trailers before the head", false, 7, 1, STREAM_A, P("")},
    {"empty data", true, 6, 0, (3 << 14) + 1, P("")},
    {"answer without status", false, 5, 0, STREAM_A, P("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")},
    {"informational answer that ends", false, 5, 1, STREAM_A,
     P("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\144\0\0\0")},
    {"answer until close", false, 5, 0, STREAM_A, P("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\310\0\3\0")},
};

static void feed_frame(struct side *to, const struct frame *f, uint32_t stream_a)
{
    char bytes[256] = {(char)f->n, 0, 0, 0, (char)f->type, (char)f->flags};
    uint32_t stream = f->stream == STREAM_A ? stream_a : f->stream;
    memcpy(bytes + 8, &stream, 4);
    memcpy(bytes + 12, f->payload, f->n);
    (void)feed(to, bytes, 12 + f->n);
}

static void what_no_correct_peer_sends_ends_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < DV_COUNT(hostile); i++) {
        const struct frame *f = &hostile[i];
        open_pair();
        uint32_t id = open_stream(true);
        settle();
        struct side *to = f->to_server ? &server : &client;
        if (strcmp(f->why, "empty data") == 0) /* needs an open direction */
            feed_frame(to,
                       &(struct frame){.type = 5,
                                       .stream = f->stream,
                                       .payload = P("RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/")},
                       0);
        assert_int_equal(to->rc, DV_OK);
        feed_frame(to, f, id);
        if (to->rc != DV_E_PROTO)
            print_error("%s: %s\n", f->why, dv_err_name(to->rc));
        assert_int_equal(to->rc, DV_E_PROTO);
        assert_true(to->err.msg[0] != '\0');
        assert_int_equal(dv_link_recv(to->l, 0, NULL), DV_E_PROTO); /* for ever */
        stop();
    }
}

static void data_beyond_the_credit_ends_the_connection(void **state)
{
    (void)state;
    open_pair();
    uint32_t id = open_stream(false);
    size_t taken;
    static char block[DV_LINK_WINDOW];
    assert_int_equal(dv_link_send(client.l, id, block, sizeof(block), false, &taken), DV_OK);
    settle();
    assert_int_equal(server.rc, DV_OK);
    feed_frame(&server, &(struct frame){.type = 6, .stream = STREAM_A, .payload = P("x")}, id);
    assert_int_equal(server.rc, DV_E_PROTO);
    stop();
}

static void reserved_bytes_and_lengths_are_checked_before_the_payload_comes(void **state)
{
    (void)state;
    open_pair();
    assert_int_equal(feed(&server, "\1\200\0\0\6\0\0\0\0\100\0\0", 12), DV_E_PROTO); /* DATA of 32769 */
    stop();
    open_pair();
    assert_int_equal(feed(&server, "\10\0\0\0\12\0\1\0\0\0\0\0", 12), DV_E_PROTO);
    stop();
}

static void before_the_handshake_nothing_but_the_handshake_is_taken(void **state)
{
    (void)state;
    for (int type = 0; type < 16; type++) {
        for (int role = 0; role < 2; role++) {
            struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
            start(&c, &s);
            struct side *to = role ? &server : &client;
            char bytes[12 + 36] = {36, 0, 0, 0, (char)type};
            int rc = feed(to, bytes, sizeof(bytes));
            assert_int_equal(rc, DV_E_PROTO);
            assert_int_equal(to->n_log, 0);
            stop();
        }
    }
}

static void a_peer_that_asks_and_never_reads_is_given_up(void **state)
{
    (void)state;
    open_pair();
    static char pings[20 * 1000];
    for (size_t i = 0; i < sizeof(pings); i += 20)
        memcpy(pings + i, "\10\0\0\0\12\0\0\0\0\0\0\0abcdefgh", 20);
    int rc = DV_OK;
    for (int i = 0; i < 1000 && !rc; i++)
        rc = feed(&server, pings, sizeof(pings));
    assert_int_equal(rc, DV_E_PROTO);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_no_correct_peer_sends_ends_the_connection),
        cmocka_unit_test(data_beyond_the_credit_ends_the_connection),
        cmocka_unit_test(reserved_bytes_and_lengths_are_checked_before_the_payload_comes),
        cmocka_unit_test(before_the_handshake_nothing_but_the_handshake_is_taken),
        cmocka_unit_test(a_peer_that_asks_and_never_reads_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
