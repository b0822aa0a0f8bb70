/* The link as it should be: handshake, streams, credit, messages. */
#include "tests/support/link_pair.h"
#include "proto/rt/link_internal.h"

/* ---- handshake ---- */

static void both_sides_open_and_know_each_other(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    settle();
    assert_int_equal(last(&client)->kind, DV_LINK_EV_OPEN);
    assert_int_equal(last(&server)->kind, DV_LINK_EV_OPEN);
    assert_int_equal(dv_link_purpose(server.l), DV_LINK_CONTROL_CONN);
    assert_int_equal(dv_link_peer_incarnation(client.l), 99);
    assert_int_equal(dv_link_peer_node(client.l), 0xabc);
    stop();
}

static void a_client_that_takes_any_node_learns_which_one_answered(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    c.node = 0;
    start(&c, &s);
    settle();
    assert_true(dv_link_is_open(client.l));
    assert_int_equal(dv_link_peer_node(client.l), 0xabc);
    stop();
}

static void a_wrong_key_or_node_opens_nothing(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    c.key[31] ^= 1;
    start(&c, &s);
    settle();
    assert_int_equal(client.rc, DV_DENIED);
    assert_false(dv_link_is_open(client.l) || dv_link_is_open(server.l));
    stop();

    c = config(DV_LINK_CLIENT, &client);
    c.node = 0xdef;
    start(&c, &s);
    settle();
    assert_int_equal(server.rc, DV_DENIED);
    assert_int_equal(client.rc, DV_DENIED); /* told by REJECT */
    assert_int_equal(client.n_log + server.n_log, 0);
    stop();
}

static void another_version_is_refused_with_a_word(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    dv_buf_ptr(dv_link_out(client.l))[12 + 4] = 7; /* lowest version: 7 */
    dv_buf_ptr(dv_link_out(client.l))[12 + 6] = 9;
    settle();
    assert_int_equal(server.rc, DV_UNSUPPORTED);
    assert_int_equal(client.rc, DV_UNSUPPORTED);
    stop();
}

static void a_reset_carries_words_for_a_person(void **state)
{
    (void)state;
    open_pair();
    uint32_t id = open_stream(true);
    settle();
    char text[DV_LINK_MAX_REASON + 50];
    memset(text, 'x', sizeof(text));
    assert_int_equal(dv_link_reset_because(server.l, id, DV_RESET_EXITED, DV_SV("exit code 3")), DV_OK);
    settle();
    assert_int_equal(last(&client)->kind, DV_LINK_EV_RESET);
    assert_int_equal(last(&client)->reset, DV_RESET_EXITED);
    assert_string_equal(client.text, "exit code 3");
    id = open_stream(true);
    settle();
    assert_int_equal(dv_link_reset_because(server.l, id, DV_RESET_EXITED, dv_sv(text, sizeof(text))), DV_OK);
    settle();
    assert_int_equal(last(&client)->bytes.n, DV_LINK_MAX_REASON);
    assert_int_equal(client.rc, DV_OK);
    id = open_stream(true);
    settle();
    assert_int_equal(dv_link_reset(server.l, id, DV_RESET_BROKEN), DV_OK);
    settle();
    assert_int_equal(last(&client)->bytes.n, 0);
    stop();
}

static void a_peer_of_the_version_before_is_spoken_to_in_its_own(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    client.l->highest = 1; /* what it offers and what its proof covers */
    dv_buf_ptr(dv_link_out(client.l))[12 + 6] = 1;
    settle();
    assert_true(dv_link_is_open(client.l) && dv_link_is_open(server.l));
    uint32_t id = open_stream(true);
    settle();
    assert_int_equal(dv_link_reset_because(server.l, id, DV_RESET_EXITED, DV_SV("exit code 3")), DV_OK);
    settle();
    assert_int_equal(last(&client)->reset, DV_RESET_EXITED);
    assert_int_equal(last(&client)->bytes.n, 0);
    static const char wordy[] = "\10\0\0\0\11\0\0\0\0\100\0\0\7\0\0\0text";
    assert_int_equal(feed(&client, wordy, sizeof(wordy) - 1), DV_E_PROTO);
    stop();

    open_pair(); /* the same bytes are in order between two of version 2 */
    assert_int_equal(feed(&client, wordy, sizeof(wordy) - 1), DV_OK);
    stop();
}

static void a_proof_sent_back_or_replayed_is_worth_nothing(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    assert_true(carry(&client, SIZE_MAX));
    /* The server's own proof, as if it were the client's. */
    char frame[12 + 32] = {32, 0, 0, 0, 3};
    memcpy(frame + 12, dv_buf_ptr(dv_link_out(server.l)) + 12 + 36, 32);
    assert_int_equal(feed(&server, frame, sizeof(frame)), DV_DENIED);
    stop();

    start(&c, &s);
    carry(&client, SIZE_MAX);
    carry(&server, SIZE_MAX);
    char proof[44];
    assert_int_equal(dv_buf_len(dv_link_out(client.l)), sizeof(proof));
    memcpy(proof, dv_buf_ptr(dv_link_out(client.l)), sizeof(proof));
    stop();
    s.nonce[0]++; /* a new connection: another nonce */
    start(&c, &s);
    carry(&client, SIZE_MAX);
    assert_int_equal(feed(&server, proof, sizeof(proof)), DV_DENIED);
    assert_false(dv_link_is_open(server.l));
    stop();
}

static void a_tampered_handshake_fails_at_every_byte(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    c.purpose = DV_LINK_DATA_CONN;
    for (size_t i = 0; i < 48 + 80; i++) {
        start(&c, &s);
        bool in_hello = i < 48;
        if (!in_hello)
            carry(&client, SIZE_MAX);
        struct dv_buf *out = dv_link_out(in_hello ? client.l : server.l);
        dv_buf_ptr(out)[in_hello ? i : i - 48] ^= 1;
        settle();
        assert_false(dv_link_is_open(client.l) && dv_link_is_open(server.l));
        stop();
    }
}

static void recv_stops_when_the_link_opens_so_that_it_can_change_hands(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    carry(&client, SIZE_MAX);
    carry(&server, SIZE_MAX);
    open_stream(true);
    struct dv_buf *out = dv_link_out(client.l);
    char *p;
    size_t room;
    assert_int_equal(dv_link_room(server.l, &p, &room), DV_OK);
    memcpy(p, dv_buf_ptr(out), dv_buf_len(out));
    assert_int_equal(dv_link_recv(server.l, dv_buf_len(out), NULL), DV_OK);
    assert_int_equal(last(&server)->kind, DV_LINK_EV_OPEN);
    struct side second = {.l = server.l};
    dv_link_set_handler(server.l, note, &second);
    assert_int_equal(dv_link_recv(server.l, 0, NULL), DV_OK);
    assert_int_equal(count(&second, DV_LINK_EV_REQUEST), 1);
    assert_int_equal(count(&server, DV_LINK_EV_REQUEST), 0);
    stop();
}

/* Computed apart from this code, from the specification's tables. */
static void assert_sends(struct side *s, const char *hex)
{
    struct dv_buf *out = dv_link_out(s->l);
    char text[512];
    assert_int_equal(2 * dv_buf_len(out), strlen(hex));
    dv_hex(dv_buf_ptr(out), dv_buf_len(out), text);
    assert_string_equal(text, hex);
    assert_true(carry(s, SIZE_MAX));
}

static void the_bytes_are_those_of_the_specification(void **state)
{
    (void)state;
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    assert_sends(
        &client,
        "2400000001000000000000004456544c0100020001000000bc0a00000000000001010101010101010101010101010101");
    assert_sends(&server, "44000000020000000000000002000000bc0a0000000000006300000000000000020202020202020202"
                          "020202020202023ad99e3c5917c7903e5a1e776d387e3a78f75a593d57e829acd244f516d14d7f");
    assert_sends(&client,
                 "200000000300000000000000b7fa3884177bf2c407864da55f6c50e521594312dbef36bdbc7b06e33778edd8");
    uint32_t id = open_stream(true);
    assert_sends(&client, "2f000000050100000040000005000000000000000000000000000000e803000000040400504f53542f"
                          "783f79486f73743a20610d0a583a20790d0a");
    assert_int_equal(dv_link_respond(server.l, id, &ok_chunked, false), DV_OK);
    assert_sends(&server, "1a000000050000000040000000000000000000000000000000000000c8000200413a20620d0a");
    size_t taken;
    assert_int_equal(dv_link_send(server.l, id, "hello", 5, true, &taken), DV_OK);
    assert_sends(&server, "05000000060100000040000068656c6c6f");
    assert_int_equal(client.rc | server.rc, 0);
    assert_string_equal(client.text, "hello");
    stop();
}

/* ---- streams ---- */

static void a_request_and_its_answer_pass_whole(void **state)
{
    (void)state;
    open_pair();
    struct dv_link_request req = a_request(DV_H1_LENGTH);
    req.content_length = 1ull << 40;
    uint32_t id;
    assert_int_equal(dv_link_open_stream(client.l, &req, false, &client, &id), DV_OK);
    settle();
    const struct dv_link_event *ev = last(&server);
    assert_int_equal(ev->kind, DV_LINK_EV_REQUEST);
    assert_int_equal(ev->stream, id);
    assert_int_equal(ev->request.replica, 5);
    assert_int_equal(ev->request.timeout_ms, 1000);
    assert_int_equal(ev->request.body, DV_H1_LENGTH);
    assert_int_equal(ev->request.content_length, 1ull << 40);
    assert_int_equal(ev->request.target.n, 4);
    assert_string_equal(server.text, "Host: a\r\nX: y\r\n");

    struct dv_link_response early = {.status = 103, .fields = DV_SV("Link: x\r\n")};
    assert_int_equal(dv_link_respond(server.l, id, &early, false), DV_OK);
    assert_int_equal(dv_link_respond(server.l, id, &early, true), DV_INVALID);
    struct dv_link_response resp = {
        .status = 201, .body = DV_H1_LENGTH, .content_length = 5, .start_us = 11, .run_us = 22};
    assert_int_equal(dv_link_respond(server.l, id, &resp, false), DV_OK);
    assert_int_equal(dv_link_respond(server.l, id, &resp, false), DV_INVALID);
    size_t taken;
    assert_int_equal(dv_link_send(server.l, id, "hello", 5, true, &taken), DV_OK);
    assert_int_equal(taken, 5);
    settle();
    assert_int_equal(client.n_log, 4);
    assert_int_equal(client.log[0].response.status, 103);
    assert_int_equal(client.log[1].response.status, 201);
    assert_int_equal(client.log[1].response.content_length, 5);
    assert_int_equal(client.log[1].response.start_us, 11);
    assert_int_equal(client.log[1].response.run_us, 22);
    assert_ptr_equal(client.log[1].user, &client);
    assert_int_equal(client.log[2].bytes.n, 5);
    assert_string_equal(client.text, "hello");
    assert_int_equal(client.log[3].kind, DV_LINK_EV_END);
    assert_int_equal(dv_link_n_streams(client.l), 1); /* our direction is still open */
    assert_int_equal(dv_link_send(client.l, id, NULL, 0, true, &taken), DV_OK);
    assert_int_equal(dv_link_n_streams(client.l), 0);
    settle();
    assert_int_equal(last(&server)->kind, DV_LINK_EV_END);
    assert_int_equal(dv_link_n_streams(server.l), 0);
    assert_int_equal(dv_link_send(client.l, id, "x", 1, false, &taken), DV_NOT_FOUND);
    stop();
}

static void a_request_without_a_body_ends_at_once_and_trailers_end_an_answer(void **state)
{
    (void)state;
    open_pair();
    uint32_t id = open_stream(true);
    settle();
    assert_int_equal(server.log[0].kind, DV_LINK_EV_REQUEST);
    assert_int_equal(server.log[1].kind, DV_LINK_EV_END);
    assert_int_equal(dv_link_respond(server.l, id, &ok_chunked, false), DV_OK);
    assert_int_equal(dv_link_send_trailers(server.l, id, DV_SV("Digest: x\r\n")), DV_OK);
    assert_int_equal(dv_link_send_trailers(server.l, id, DV_SV("")), DV_NOT_FOUND);
    settle();
    assert_int_equal(client.log[1].kind, DV_LINK_EV_TRAILERS);
    assert_string_equal(client.text, "Digest: x\r\n");
    assert_int_equal(client.log[2].kind, DV_LINK_EV_END);
    assert_int_equal(dv_link_n_streams(client.l) + dv_link_n_streams(server.l), 0);
    stop();
}

static void a_reset_ends_the_stream_on_both_sides_and_late_frames_are_dropped(void **state)
{
    (void)state;
    open_pair();
    uint32_t id = open_stream(false);
    settle();
    size_t taken;
    assert_int_equal(dv_link_respond(server.l, id, &ok_chunked, false), DV_OK);
    assert_int_equal(dv_link_send(server.l, id, "late", 4, false, &taken), DV_OK);
    assert_int_equal(dv_link_reset(client.l, id, DV_RESET_CANCEL), DV_OK);
    assert_int_equal(dv_link_reset(client.l, id, DV_RESET_CANCEL), DV_NOT_FOUND);
    uint32_t next = open_stream(false); /* same slot, another id */
    assert_int_not_equal(next, id);
    settle();
    assert_int_equal(count(&client, DV_LINK_EV_DATA) + count(&client, DV_LINK_EV_RESPONSE), 0);
    assert_int_equal(count(&server, DV_LINK_EV_RESET), 1);
    assert_int_equal(server.log[1].reset, DV_RESET_CANCEL);
    assert_int_equal(dv_link_n_streams(client.l), 1);
    assert_int_equal(dv_link_n_streams(server.l), 1);
    assert_int_equal(dv_link_reset(server.l, next, DV_RESET_NOT_HERE), DV_OK);
    settle();
    assert_int_equal(last(&client)->kind, DV_LINK_EV_RESET);
    assert_int_equal(last(&client)->reset, DV_RESET_NOT_HERE);
    assert_ptr_equal(last(&client)->user, &client);
    assert_int_equal(dv_link_n_streams(client.l) + dv_link_n_streams(server.l), 0);
    assert_int_equal(client.rc | server.rc, 0);
    stop();
}

static void only_resets_before_the_function_are_safe_to_repeat(void **state)
{
    (void)state;
    for (int r = 0; r < DV_RESET_N; r++) {
        bool unseen = r == DV_RESET_NOT_HERE || r == DV_RESET_REFUSED || r == DV_RESET_CONNECT;
        assert_int_equal(dv_link_reset_unseen((enum dv_link_reset)r), unseen);
        assert_true(strlen(dv_link_reset_text((enum dv_link_reset)r)) > 10);
    }
}

static void ids_stay_small_and_streams_are_bounded(void **state)
{
    (void)state;
    open_pair();
    uint32_t first = open_stream(true), id = first;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(dv_link_reset(client.l, id, DV_RESET_CANCEL), DV_OK);
        id = open_stream(true);
        assert_int_equal(id & (DV_LINK_MAX_STREAMS - 1), first & (DV_LINK_MAX_STREAMS - 1));
        dv_buf_clear(dv_link_out(client.l));
    }
    for (int i = 1; i < DV_LINK_MAX_STREAMS; i++) {
        open_stream(true);
        dv_buf_clear(dv_link_out(client.l));
    }
    struct dv_link_request req = a_request(DV_H1_NO_BODY);
    assert_int_equal(dv_link_open_stream(client.l, &req, true, NULL, &id), DV_NO_CAPACITY);
    assert_int_equal(dv_link_n_streams(client.l), DV_LINK_MAX_STREAMS);
    stop();
}

static void steady_state_allocates_nothing(void **state)
{
    (void)state;
    open_pair();
    for (int i = 0; i < 200; i++) {
        if (i == 100)
            dv_alloc_fail_at(UINT64_MAX); /* counts from here */
        uint32_t id = open_stream(true);
        settle();
        size_t taken;
        assert_int_equal(dv_link_respond(server.l, id, &ok_chunked, false), DV_OK);
        assert_int_equal(dv_link_send(server.l, id, "hello", 5, true, &taken), DV_OK);
        settle();
        assert_int_equal(dv_link_n_streams(client.l), 0);
    }
    assert_int_equal(dv_alloc_count(), 0);
    dv_alloc_fail_at(0);
    stop();
}

static void goaway_stops_new_streams_and_serves_those_that_cross_it(void **state)
{
    (void)state;
    open_pair();
    uint32_t old = open_stream(false);
    settle();
    assert_int_equal(dv_link_goaway(server.l), DV_OK);
    assert_int_equal(dv_link_goaway(server.l), DV_OK); /* once is enough */
    uint32_t crossing = open_stream(false);
    size_t taken;
    assert_int_equal(dv_link_send(client.l, crossing, "body", 4, true, &taken), DV_OK);
    assert_false(dv_link_is_quiet(server.l));
    settle();
    assert_int_equal(count(&client, DV_LINK_EV_GOAWAY), 1);
    assert_int_equal(count(&client, DV_LINK_EV_RESET), 0);
    assert_int_equal(count(&server, DV_LINK_EV_REQUEST), 2);
    assert_int_equal(count(&server, DV_LINK_EV_PONG), 0); /* the link's own affair */
    assert_string_equal(server.text, "body");
    assert_true(dv_link_is_quiet(server.l));
    assert_int_equal(dv_link_respond(server.l, crossing, &ok_chunked, true), DV_OK);
    struct dv_link_request req = a_request(DV_H1_NO_BODY);
    assert_int_equal(dv_link_open_stream(client.l, &req, true, NULL, &crossing), DV_CLOSED);
    assert_int_equal(dv_link_send(client.l, old, "x", 1, true, &taken), DV_OK); /* and goes on */
    assert_int_equal(dv_link_respond(server.l, old, &ok_chunked, true), DV_OK);
    settle();
    assert_int_equal(last(&server)->kind, DV_LINK_EV_END);
    assert_int_equal(dv_link_n_streams(server.l) + dv_link_n_streams(client.l), 0);
    stop();
}

static void a_stream_opened_behind_the_echo_of_goaway_ends_the_connection(void **state)
{
    (void)state;
    static const char headers[] = "\34\0\0\0\5\1\0\0\0\100\0\0RRRRRRRR\0\0\0\0\0\0\0\0\0\0\0\0\0\3\1\0GET/";
    open_pair();
    assert_int_equal(dv_link_goaway(server.l), DV_OK);
    settle();
    assert_true(dv_link_is_quiet(server.l));
    assert_int_equal(feed(&server, headers, sizeof(headers) - 1), DV_E_PROTO);
    stop();
    open_pair(); /* the same bytes are a request otherwise */
    assert_int_equal(feed(&server, headers, sizeof(headers) - 1), DV_OK);
    assert_int_equal(count(&server, DV_LINK_EV_REQUEST), 1);
    stop();
}

static void a_client_that_leaves_opens_nothing_and_is_quiet_at_once(void **state)
{
    (void)state;
    open_pair();
    assert_int_equal(dv_link_goaway(client.l), DV_OK);
    assert_true(dv_link_is_quiet(client.l));
    struct dv_link_request req = a_request(DV_H1_NO_BODY);
    uint32_t id;
    assert_int_equal(dv_link_open_stream(client.l, &req, true, NULL, &id), DV_CLOSED);
    settle();
    assert_int_equal(count(&server, DV_LINK_EV_GOAWAY), 1);
    stop();
}

/* The client opens streams with bodies whenever it may, the server leaves at a random moment, bytes are cut
 * anywhere: whatever was opened is answered whole, and quiet is never said too early. */

static struct {
    size_t n_opened, n_requests, n_bytes, n_ended, n_answered, n_resets;
    uint32_t ids[200], sent[200];
} leaving;

static void on_leaving_event(struct side *s, const struct dv_link_event *ev)
{
    if (s == &client) {
        leaving.n_answered += ev->kind == DV_LINK_EV_END;
        leaving.n_resets += ev->kind == DV_LINK_EV_RESET;
        return;
    }
    leaving.n_requests += ev->kind == DV_LINK_EV_REQUEST;
    leaving.n_bytes += ev->kind == DV_LINK_EV_DATA ? ev->bytes.n : 0;
    if (ev->kind == DV_LINK_EV_REQUEST)
        assert_false(dv_link_is_quiet(server.l));
    if (ev->kind == DV_LINK_EV_END) {
        leaving.n_ended++;
        assert_int_equal(dv_link_respond(server.l, ev->stream, &ok_chunked, true), DV_OK);
    }
}

static void whatever_crosses_goaway_is_answered(void **state)
{
    (void)state;
    enum { BODY = 60000 };
    static const char body[BODY];
    for (uint64_t seed = 0; seed < 50; seed++) {
        open_pair();
        dv_rng_init(&rng, seed);
        memset(&leaving, 0, sizeof(leaving));
        client.react = server.react = on_leaving_event;
        uint64_t leaves_at = dv_rng_below(&rng, 120);
        for (uint64_t turn = 0; turn < 400; turn++) {
            struct dv_link_request req = a_request(DV_H1_CHUNKED);
            size_t n = leaving.n_opened, taken;
            if (n < DV_COUNT(leaving.ids) &&
                dv_link_open_stream(client.l, &req, false, NULL, &leaving.ids[n]) == DV_OK)
                leaving.n_opened++;
            for (size_t i = n > 4 ? n - 4 : 0; i < leaving.n_opened; i++) {
                size_t run = dv_rng_below(&rng, 2) ? BODY - leaving.sent[i] : 0;
                if (leaving.sent[i] < BODY && run &&
                    dv_link_send(client.l, leaving.ids[i], body, run, true, &taken) == DV_OK)
                    leaving.sent[i] += (uint32_t)taken;
            }
            if (turn == leaves_at)
                assert_int_equal(dv_link_goaway(server.l), DV_OK);
            (void)carry(&client, dv_rng_below(&rng, 200000));
            (void)carry(&server, dv_rng_below(&rng, 200));
        }
        for (size_t i = 0; i < leaving.n_opened; i++) {
            size_t taken;
            if (leaving.sent[i] < BODY)
                assert_int_equal(
                    dv_link_send(client.l, leaving.ids[i], body, BODY - leaving.sent[i], true, &taken),
                    DV_OK);
        }
        settle();
        assert_int_equal(client.rc | server.rc, DV_OK);
        assert_true(dv_link_is_quiet(server.l));
        assert_int_equal(leaving.n_resets, 0);
        assert_true(leaving.n_opened > 0);
        assert_int_equal(leaving.n_requests, leaving.n_opened);
        assert_int_equal(leaving.n_answered, leaving.n_opened);
        assert_int_equal(leaving.n_bytes, leaving.n_opened * BODY);
        assert_int_equal(dv_link_n_streams(server.l) + dv_link_n_streams(client.l), 0);
        stop();
    }
}

/* ---- credit ---- */

static void a_sender_stops_at_the_window_and_goes_on_when_bytes_were_consumed(void **state)
{
    (void)state;
    open_pair();
    static char block[DV_LINK_WINDOW + 1000];
    uint32_t id = open_stream(false);
    size_t taken;
    assert_int_equal(dv_link_send(client.l, id, block, sizeof(block), true, &taken), DV_OK);
    assert_int_equal(taken, DV_LINK_WINDOW);
    assert_int_equal(dv_link_credit(client.l, id), 0);
    settle();
    assert_int_equal(count(&client, DV_LINK_EV_WRITABLE), 0);
    dv_link_consumed(server.l, id, DV_LINK_WINDOW / 2 - 1);
    assert_int_equal(dv_buf_len(dv_link_out(server.l)), 0); /* gathered */
    dv_link_consumed(server.l, id, 1);
    settle();
    assert_int_equal(count(&client, DV_LINK_EV_WRITABLE), 1);
    assert_int_equal(dv_link_credit(client.l, id), DV_LINK_WINDOW / 2);
    assert_int_equal(dv_link_send(client.l, id, block, 1000, true, &taken), DV_OK);
    assert_int_equal(taken, 1000);
    settle();
    assert_int_equal(last(&server)->kind, DV_LINK_EV_END);
    stop();
}

static void unwritten_output_stops_senders_until_it_has_left(void **state)
{
    (void)state;
    open_pair();
    static char block[DV_LINK_WINDOW];
    enum { N = 12 };
    size_t total = 0;
    for (int i = 0; i < N; i++) {
        size_t taken;
        assert_int_equal(dv_link_send(client.l, open_stream(false), block, sizeof(block), false, &taken),
                         DV_OK);
        total += taken;
    }
    assert_in_range(total, DV_LINK_OUT_BYTES - DV_LINK_MAX_DATA, DV_LINK_OUT_BYTES + DV_LINK_MAX_DATA);
    assert_int_equal(count(&client, DV_LINK_EV_WRITABLE), 0);
    struct dv_buf *out = dv_link_out(client.l);
    dv_buf_consume(out, dv_buf_len(out));
    dv_link_flushed(client.l);
    assert_int_equal(count(&client, DV_LINK_EV_WRITABLE), N - DV_LINK_OUT_BYTES / DV_LINK_WINDOW);
    stop();
}

/* Many streams at once, random sizes, random consumption, bytes cut anywhere: every byte arrives once, in
 * order, and no side ever holds more than a window of one stream. */

enum { N_FLOWS = 40, FLOW_MAX = 400 * 1000 };

struct flow {
    uint32_t id;
    size_t size[2], sent[2], got[2], consumed[2]; /* 0: request, 1: answer */
    bool ended[2], answered;
};
static struct flow flows[N_FLOWS];

static uint8_t byte_of(size_t flow, int way, size_t at)
{
    return (uint8_t)((at * 7 + flow * 31 + (size_t)way * 13 + (at >> 8)) & 0xff);
}

static struct flow *flow_of(uint32_t id)
{
    for (size_t i = 0; i < N_FLOWS; i++)
        if (flows[i].id == id)
            return &flows[i];
    fail_msg("event for unknown stream %u", id);
    return NULL;
}

static void on_flow_event(struct side *s, const struct dv_link_event *ev)
{
    int way = s == &server ? 0 : 1;
    if (ev->kind == DV_LINK_EV_REQUEST) {
        struct flow *f = flow_of(ev->stream);
        f->answered = true;
        assert_int_equal(dv_link_respond(server.l, f->id, &ok_chunked, false), DV_OK);
    } else if (ev->kind == DV_LINK_EV_DATA) {
        struct flow *f = flow_of(ev->stream);
        for (size_t i = 0; i < ev->bytes.n; i++)
            if ((uint8_t)ev->bytes.p[i] != byte_of((size_t)(f - flows), way, f->got[way] + i))
                fail_msg("byte %zu of flow %zu is wrong", f->got[way] + i, (size_t)(f - flows));
        f->got[way] += ev->bytes.n;
        assert_true(f->got[way] - f->consumed[way] <= DV_LINK_WINDOW);
    } else if (ev->kind == DV_LINK_EV_END) {
        flow_of(ev->stream)->ended[way] = true;
    } else if (ev->kind == DV_LINK_EV_RESET) {
        fail_msg("reset");
    }
}

static void push(size_t i, int way)
{
    struct flow *f = &flows[i];
    static char bytes[64 * 1024];
    size_t n = dv_rng_below(&rng, sizeof(bytes)), taken = 0;
    if (n > f->size[way] - f->sent[way])
        n = f->size[way] - f->sent[way];
    for (size_t k = 0; k < n; k++)
        bytes[k] = (char)byte_of(i, way, f->sent[way] + k);
    bool end = f->sent[way] + n == f->size[way];
    int rc = dv_link_send(way == 0 ? client.l : server.l, f->id, bytes, n, end, &taken);
    assert_int_equal(rc, DV_OK);
    f->sent[way] += taken;
    if (end && taken == n)
        f->sent[way] = SIZE_MAX; /* ended */
}

static void consume(struct flow *f, int way)
{
    size_t n = dv_rng_below(&rng, f->got[way] - f->consumed[way] + 1);
    dv_link_consumed(way == 0 ? server.l : client.l, f->id, n);
    f->consumed[way] += n;
}

static void every_byte_arrives_once_in_order_and_within_the_window(void **state)
{
    (void)state;
    open_pair();
    memset(flows, 0, sizeof(flows));
    client.react = server.react = on_flow_event;
    size_t n_done = 0;
    for (size_t i = 0; i < N_FLOWS; i++)
        for (int way = 0; way < 2; way++)
            flows[i].size[way] = dv_rng_below(&rng, 4) ? dv_rng_below(&rng, FLOW_MAX) : dv_rng_below(&rng, 2);
    for (int turn = 0; n_done < N_FLOWS; turn++) {
        assert_true(turn < 200000);
        size_t i = dv_rng_below(&rng, N_FLOWS);
        int way = (int)dv_rng_below(&rng, 2);
        struct flow *f = &flows[i];
        if (!f->id)
            f->id = open_stream(false);
        else if (f->sent[way] != SIZE_MAX && (way == 0 || f->answered))
            push(i, way);
        consume(f, way);
        (void)carry(&client, dv_rng_below(&rng, 20000));
        (void)carry(&server, dv_rng_below(&rng, 20000));
        assert_int_equal(client.rc | server.rc, 0);
        n_done = 0;
        for (size_t k = 0; k < N_FLOWS; k++)
            n_done += flows[k].ended[0] && flows[k].ended[1];
    }
    for (size_t k = 0; k < N_FLOWS; k++)
        for (int way = 0; way < 2; way++)
            assert_int_equal(flows[k].got[way], flows[k].size[way]);
    settle();
    assert_int_equal(dv_link_n_streams(client.l) + dv_link_n_streams(server.l), 0);
    stop();
}

/* ---- messages, pings ---- */

static void control_and_report_pass_one_way_each_and_only_on_control_connections(void **state)
{
    (void)state;
    open_pair();
    assert_int_equal(dv_link_control(client.l, DV_SV("{\"a\":1}")), DV_OK);
    assert_int_equal(dv_link_report(server.l, DV_SV("{\"b\":2}")), DV_OK);
    assert_int_equal(dv_link_report(client.l, DV_SV("{}")), DV_INVALID);
    assert_int_equal(dv_link_control(server.l, DV_SV("{}")), DV_INVALID);
    settle();
    assert_int_equal(last(&server)->kind, DV_LINK_EV_CONTROL);
    assert_string_equal(server.text, "{\"a\":1}");
    assert_int_equal(last(&client)->kind, DV_LINK_EV_REPORT);
    assert_string_equal(client.text, "{\"b\":2}");
    char *big = dv_zalloc(DV_LINK_MAX_MESSAGE + 1);
    assert_non_null(big);
    assert_int_equal(dv_link_control(client.l, dv_sv(big, DV_LINK_MAX_MESSAGE + 1)), DV_TOO_LARGE);
    assert_int_equal(dv_link_control(client.l, dv_sv(big, DV_LINK_MAX_MESSAGE)), DV_OK);
    assert_int_equal(dv_link_control(client.l, dv_sv(big, DV_LINK_MAX_MESSAGE)), DV_OK);
    assert_int_equal(dv_link_control(client.l, dv_sv(big, DV_LINK_MAX_MESSAGE)), DV_NO_CAPACITY);
    dv_free(big);
    settle();
    assert_int_equal(count(&server, DV_LINK_EV_CONTROL), 3);
    stop();

    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    c.purpose = DV_LINK_DATA_CONN;
    start(&c, &s);
    settle();
    assert_int_equal(dv_link_control(client.l, DV_SV("{}")), DV_INVALID);
    assert_int_equal(feed(&server, "\2\0\0\0\14\0\0\0\0\0\0\0{}", 14), DV_E_PROTO);
    stop();
}

static void a_ping_comes_back_with_its_value(void **state)
{
    (void)state;
    open_pair();
    assert_int_equal(dv_link_ping(client.l, 1234567890123ull), DV_OK);
    settle();
    assert_int_equal(last(&client)->kind, DV_LINK_EV_PONG);
    assert_int_equal(last(&client)->value, 1234567890123ull);
    assert_int_equal(server.n_log, 0);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_open_and_know_each_other),
        cmocka_unit_test(a_client_that_takes_any_node_learns_which_one_answered),
        cmocka_unit_test(a_wrong_key_or_node_opens_nothing),
        cmocka_unit_test(another_version_is_refused_with_a_word),
        cmocka_unit_test(a_reset_carries_words_for_a_person),
        cmocka_unit_test(a_peer_of_the_version_before_is_spoken_to_in_its_own),
        cmocka_unit_test(a_proof_sent_back_or_replayed_is_worth_nothing),
        cmocka_unit_test(a_tampered_handshake_fails_at_every_byte),
        cmocka_unit_test(recv_stops_when_the_link_opens_so_that_it_can_change_hands),
        cmocka_unit_test(the_bytes_are_those_of_the_specification),
        cmocka_unit_test(a_request_and_its_answer_pass_whole),
        cmocka_unit_test(a_request_without_a_body_ends_at_once_and_trailers_end_an_answer),
        cmocka_unit_test(a_reset_ends_the_stream_on_both_sides_and_late_frames_are_dropped),
        cmocka_unit_test(only_resets_before_the_function_are_safe_to_repeat),
        cmocka_unit_test(ids_stay_small_and_streams_are_bounded),
        cmocka_unit_test(steady_state_allocates_nothing),
        cmocka_unit_test(goaway_stops_new_streams_and_serves_those_that_cross_it),
        cmocka_unit_test(a_stream_opened_behind_the_echo_of_goaway_ends_the_connection),
        cmocka_unit_test(a_client_that_leaves_opens_nothing_and_is_quiet_at_once),
        cmocka_unit_test(whatever_crosses_goaway_is_answered),
        cmocka_unit_test(a_sender_stops_at_the_window_and_goes_on_when_bytes_were_consumed),
        cmocka_unit_test(unwritten_output_stops_senders_until_it_has_left),
        cmocka_unit_test(every_byte_arrives_once_in_order_and_within_the_window),
        cmocka_unit_test(control_and_report_pass_one_way_each_and_only_on_control_connections),
        cmocka_unit_test(a_ping_comes_back_with_its_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
