/*
 * An embedding server that is never the bottleneck: one thread, epoll, and
 * answers put together of texts that were written before it started.
 *
 *     upstream PORT ROWS [MICROSECONDS]
 *
 * ROWS is a file made by rows.py: each line has one row twice, as numbers with
 * commas and, after a tab, as base64 of little-endian float32.  An input gets
 * the row whose number is the FNV-1a hash of its JSON bytes, modulo the number
 * of rows; and it counts as many tokens as it has bytes.  So a program that
 * has the file has every answer.  Port 0 is any; the address is printed.  A request
 * for rows takes so many MICROSECONDS, one after the other, as in front of a
 * model; by default none.
 *
 * It speaks as text-embeddings-inference 1.9 does, as far as a proxy looks:
 * HTTP/1.1 with keep-alive, pipelining and Content-Length, /info and /health,
 * /embed, /v1/embeddings and /tokenize.  It also takes whatever a collector of
 * traces is sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_INPUTS = 32, MAX_PENDING = 1 << 20, MAX_REQUEST = 4 << 20, READ = 1 << 16 };

#define INFO                                                                      \
    "{\"model_id\":\"sentence-transformers/all-MiniLM-L6-v2\",\"model_sha\":null," \
    "\"model_dtype\":\"float32\",\"served_model_name\":\"all-MiniLM-L6-v2\","      \
    "\"model_type\":{\"embedding\":{\"pooling\":\"mean\"}},"                       \
    "\"max_concurrent_requests\":512,\"max_input_length\":256,"                    \
    "\"max_batch_tokens\":16384,\"max_batch_requests\":null,"                      \
    "\"max_client_batch_size\":32,\"auto_truncate\":true,"                         \
    "\"tokenization_workers\":1,\"version\":\"1.9.3\",\"sha\":null,"               \
    "\"docker_label\":null}"
#define CORS                                                                      \
    "vary: origin, access-control-request-method, access-control-request-headers" \
    "\r\naccess-control-allow-origin: *\r\n"

/* A piece of memory of another owner. */
struct span {
    const char *at;
    size_t size;
};

/* Bytes that grow; what lies before `start` is done with. */
struct buffer {
    char *bytes;
    size_t start, end, room;
};

struct connection {
    int fd;
    int is_last; /* the client or an error wants the connection closed */
    uint32_t watched;
    struct buffer in, out;
};

struct row {
    struct span numbers, base64;
};

struct question {
    struct span inputs[MAX_INPUTS];
    size_t count;
    size_t bytes;
    int is_base64;
};

static struct row *rows;
static size_t row_count;
static int epoll_fd;
static char date_line[64];
static useconds_t takes_us;

static void fail(const char *what) {
    fprintf(stderr, "upstream: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- buffers ---------------------------------------------------------- */

static void make_room(struct buffer *b, size_t size) {
    if (b->start == b->end) b->start = b->end = 0;
    if (b->room - b->end >= size) return;
    if (b->start) memmove(b->bytes, b->bytes + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
    if (b->room - b->end >= size) return;
    b->room = (b->end + size) * 2;
    b->bytes = realloc(b->bytes, b->room);
    if (!b->bytes) fail("memory");
}

static void put(struct buffer *b, const char *bytes, size_t size) {
    if (!size) return;
    make_room(b, size);
    memcpy(b->bytes + b->end, bytes, size);
    b->end += size;
}

static void put_text(struct buffer *b, const char *text) { put(b, text, strlen(text)); }

static void put_format(struct buffer *b, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put(b, text, (size_t)size);
}

/* ---- JSON: where things begin and end, not what they mean -------------- */

static const char *skip_blank(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

static const char *skip_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') at++;
    return at < end ? at + 1 : NULL;
}

/* Find the end of a value; NULL if there is none. */
static const char *skip_value(const char *at, const char *end) {
    int depth = 0;
    while (at < end) {
        if (*at == '"') {
            if (!(at = skip_string(at, end))) return NULL;
            if (!depth) return at;
        } else if (*at == '[' || *at == '{') {
            depth++, at++;
        } else if (*at == ']' || *at == '}') {
            if (!depth) return at; /* a number or a word ended here */
            at++;
            if (!--depth) return at;
        } else if (*at == ',' && !depth) {
            return at;
        } else {
            at++;
        }
    }
    return NULL;
}

static struct span between(const char *at, const char *after) {
    return (struct span){at, (size_t)(after - at)};
}

static int is(struct span s, const char *text) {
    return s.size == strlen(text) && !memcmp(s.at, text, s.size);
}

static int take_inputs(struct span value, struct question *q) {
    if (*value.at != '[') {
        q->inputs[q->count++] = value;
        return 1;
    }
    const char *end = value.at + value.size, *at = skip_blank(value.at + 1, end);
    while (at < end && *at != ']') {
        const char *after = skip_value(at, end);
        if (!after || after == at) return 0;
        if (q->count < MAX_INPUTS) q->inputs[q->count] = between(at, after);
        q->count++;
        at = skip_blank(after, end);
        if (at < end && *at == ',') at = skip_blank(at + 1, end);
    }
    return 1;
}

/* Read `inputs` or `input`, and `encoding_format`; 0 if it is no such object. */
static int read_question(struct span body, struct question *q) {
    const char *end = body.at + body.size, *at = skip_blank(body.at, end);
    q->count = q->bytes = 0;
    q->is_base64 = 0;
    if (at == end || *at != '{') return 0;
    at = skip_blank(at + 1, end);
    while (at < end && *at == '"') {
        const char *after = skip_string(at, end);
        if (!after) return 0;
        struct span key = between(at, after);
        at = skip_blank(after, end);
        if (at == end || *at != ':') return 0;
        at = skip_blank(at + 1, end);
        if (!(after = skip_value(at, end)) || after == at) return 0;
        struct span value = between(at, after);
        if (is(key, "\"inputs\"") || is(key, "\"input\"")) {
            if (!take_inputs(value, q)) return 0;
        } else if (is(key, "\"encoding_format\"")) {
            q->is_base64 = is(value, "\"base64\"");
        }
        at = skip_blank(after, end);
        if (at < end && *at == ',') at = skip_blank(at + 1, end);
    }
    for (size_t i = 0; i < q->count && i < MAX_INPUTS; i++) q->bytes += q->inputs[i].size;
    return at < end && *at == '}';
}

/* ---- answers ----------------------------------------------------------- */

static const struct row *row_of(struct span input) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < input.size; i++)
        hash = (hash ^ (unsigned char)input.at[i]) * 16777619u;
    return &rows[hash % row_count];
}

static void answer(struct buffer *out, const char *status, const char *type,
                   const char *more, const char *body, size_t size) {
    put_format(out, "HTTP/1.1 %s\r\n", status);
    if (type) put_format(out, "content-type: %s\r\n", type);
    put_text(out, more);
    put_format(out, CORS "content-length: %zu\r\n%s\r\n", size, date_line);
    put(out, body, size);
}

static void refuse(struct buffer *out, const char *status, const char *words) {
    char body[256];
    int size = snprintf(body, sizeof body,
                        "{\"error\":\"%s\",\"error_type\":\"Validation\"}", words);
    answer(out, status, "application/json", "", body, (size_t)size);
}

static void put_rows(struct buffer *body, const struct question *q) {
    put_text(body, "[");
    for (size_t i = 0; i < q->count; i++) {
        const struct row *row = row_of(q->inputs[i]);
        put_text(body, i ? ",[" : "[");
        put(body, row->numbers.at, row->numbers.size);
        put_text(body, "]");
    }
    put_text(body, "]");
}

static void put_openai(struct buffer *body, const struct question *q) {
    put_text(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < q->count; i++) {
        const struct row *row = row_of(q->inputs[i]);
        struct span text = q->is_base64 ? row->base64 : row->numbers;
        put_text(body, i ? ",{\"object\":\"embedding\",\"embedding\":"
                         : "{\"object\":\"embedding\",\"embedding\":");
        put_text(body, q->is_base64 ? "\"" : "[");
        put(body, text.at, text.size);
        put_format(body, "%s,\"index\":%zu}", q->is_base64 ? "\"" : "]", i);
    }
    put_format(body,
               "],\"model\":\"all-MiniLM-L6-v2\",\"usage\":{\"prompt_tokens\":%zu,"
               "\"total_tokens\":%zu}}",
               q->bytes, q->bytes);
}

static void put_tokens(struct buffer *body, const struct question *q) {
    put_text(body, "[");
    for (size_t i = 0; i < q->count; i++) {
        put_text(body, i ? ",[" : "[");
        for (size_t j = 0; j < q->inputs[i].size; j++)
            put_format(body,
                       "%s{\"id\":1,\"text\":\"a\",\"special\":false,\"start\":%zu,"
                       "\"stop\":%zu}",
                       j ? "," : "", j, j + 1);
        put_text(body, "]");
    }
    put_text(body, "]");
}

typedef void put_answer(struct buffer *body, const struct question *q);

static void infer(struct buffer *out, struct span body, put_answer *put_body) {
    static struct buffer answered;
    struct question q;
    char more[512];
    if (!read_question(body, &q)) return refuse(out, "400 Bad Request", "no such JSON");
    if (!q.count) return refuse(out, "400 Bad Request", "`inputs` cannot be empty");
    if (q.count > MAX_INPUTS) {
        snprintf(more, sizeof more, "batch size %zu > maximum allowed batch size %d",
                 q.count, MAX_INPUTS);
        return refuse(out, "422 Unprocessable Entity", more);
    }
    if (takes_us) usleep(takes_us);
    answered.start = answered.end = 0;
    put_body(&answered, &q);
    snprintf(more, sizeof more,
             "x-compute-type: cpu\r\nx-compute-time: 1\r\nx-compute-characters: %zu\r\n"
             "x-compute-tokens: %zu\r\nx-total-time: 1\r\nx-tokenization-time: 0\r\n"
             "x-queue-time: 0\r\nx-inference-time: 1\r\n",
             q.bytes, q.bytes);
    answer(out, "200 OK", "application/json", more, answered.bytes, answered.end);
}

/* ---- HTTP --------------------------------------------------------------- */

/* Find the value of a header line by its lower-case name, with a colon. */
static struct span header(struct span head, const char *name) {
    size_t size = strlen(name);
    const char *at = head.at, *end = head.at + head.size;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        at++;
        if ((size_t)(end - at) > size && !strncasecmp(at, name, size)) {
            const char *line_end = memchr(at, '\r', (size_t)(end - at));
            at = skip_blank(at + size, end);
            return (struct span){at, line_end ? (size_t)(line_end - at) : 0};
        }
    }
    return (struct span){NULL, 0};
}

static int asks(struct span head, const char *method_and_path) {
    size_t size = strlen(method_and_path);
    return head.size > size && !memcmp(head.at, method_and_path, size) &&
           (head.at[size] == ' ' || head.at[size] == '?');
}

static void route(struct buffer *out, struct span head, struct span body) {
    if (asks(head, "POST /embed"))
        infer(out, body, put_rows);
    else if (asks(head, "POST /v1/embeddings"))
        infer(out, body, put_openai);
    else if (asks(head, "POST /tokenize"))
        infer(out, body, put_tokens);
    else if (asks(head, "GET /info"))
        answer(out, "200 OK", "application/json", "", INFO, strlen(INFO));
    else if (asks(head, "GET /health") || asks(head, "HEAD /health") ||
             asks(head, "POST /v1/traces"))
        answer(out, "200 OK", NULL, "", "", 0);
    else
        answer(out, "404 Not Found", NULL, "", "", 0);
}

/* Answer the first request that has arrived in full; 0 if there is none. */
static int answer_one(struct connection *c) {
    struct span got = {c->in.bytes + c->in.start, c->in.end - c->in.start};
    const char *blank = got.size ? memmem(got.at, got.size, "\r\n\r\n", 4) : NULL;
    if (!blank) return 0;
    struct span head = {got.at, (size_t)(blank - got.at) + 4};
    struct span length = header(head, "content-length:");
    struct span body = {blank + 4, length.at ? strtoul(length.at, NULL, 10) : 0};
    if (body.size > MAX_REQUEST || header(head, "transfer-encoding:").at) {
        answer(&c->out, "400 Bad Request", NULL, "connection: close\r\n", "", 0);
        return c->is_last = 1;
    }
    if (got.size < head.size + body.size) return 0;
    struct span wish = header(head, "connection:");
    c->is_last = wish.size == 5 && !strncasecmp(wish.at, "close", 5);
    route(&c->out, head, body);
    c->in.start += head.size + body.size;
    return 1;
}

/* ---- connections --------------------------------------------------------- */

static void watch(struct connection *c, uint32_t events) {
    if (c->watched == events) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event);
    c->watched = events;
}

static void hang_up(struct connection *c) {
    close(c->fd);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
}

/* Write what there is; 0 if the connection is gone. */
static int write_out(struct connection *c) {
    while (c->out.start < c->out.end) {
        ssize_t sent = send(c->fd, c->out.bytes + c->out.start,
                            c->out.end - c->out.start, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        c->out.start += (size_t)sent;
    }
    return 1;
}

/* Read once: a level-triggered watch tells if there is more. 0 if it is gone. */
static int read_in(struct connection *c) {
    make_room(&c->in, READ);
    ssize_t got = recv(c->fd, c->in.bytes + c->in.end, c->in.room - c->in.end, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    c->in.end += (size_t)got;
    return 1;
}

static void serve(struct connection *c, uint32_t events) {
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read_in(c)) return hang_up(c);
    for (int more = 1; more && !c->is_last;) {
        while (c->out.end - c->out.start < MAX_PENDING && !c->is_last &&
               (more = answer_one(c))) {
        }
        if (!write_out(c)) return hang_up(c);
        if (c->out.start < c->out.end) break;
    }
    if (!write_out(c)) return hang_up(c);
    /* Who does not read his answers is not read from either. */
    int is_written = c->out.start == c->out.end;
    if (is_written && c->is_last) return hang_up(c);
    watch(c, is_written ? EPOLLIN : EPOLLOUT);
}

static void welcome(int listening) {
    int fd, one = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) fail("memory");
        c->fd = fd;
        watch(c, EPOLLIN);
    }
}

/* ---- the program ----------------------------------------------------------- */

static void read_rows(const char *path) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    if (!file) fail(path);
    while ((size = getline(&line, &room, file)) > 0) {
        char *text = strndup(line, (size_t)size - 1), *tab = strchr(text, '\t');
        rows = realloc(rows, (row_count + 1) * sizeof *rows);
        if (!tab || !rows) fail("rows");
        rows[row_count++] = (struct row){{text, (size_t)(tab - text)},
                                         {tab + 1, strlen(tab + 1)}};
    }
    if (!row_count) fail("no rows");
    free(line);
    fclose(file);
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096))
        fail("cannot listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void write_date(void) {
    static time_t written;
    time_t now = time(NULL);
    if (now == written) return;
    written = now;
    strftime(date_line, sizeof date_line, "date: %a, %d %b %Y %H:%M:%S GMT\r\n",
             gmtime(&now));
}

int main(int count, char **arguments) {
    if (count < 3) return fprintf(stderr, "usage: upstream PORT ROWS [US]\n"), 2;
    if (count > 3) takes_us = (useconds_t)atoi(arguments[3]);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* who started it may be killed */
    read_rows(arguments[2]);
    epoll_fd = epoll_create1(0);
    int listening = listen_on(atoi(arguments[1]));
    struct epoll_event ready[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        int found = epoll_wait(epoll_fd, ready, 256, -1);
        write_date();
        for (int i = 0; i < found; i++) {
            if (ready[i].data.ptr)
                serve(ready[i].data.ptr, ready[i].events);
            else
                welcome(listening);
        }
    }
}
