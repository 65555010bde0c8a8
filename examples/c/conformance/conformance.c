/* A Millstream module in C, written against sdk/wit/module.wit and docs/modules.md alone: no libc, no bindings generator.
 *
 * It does what its parameter `mode` says; sdk/wit/README.md tells what each mode means. `millstream module build` makes a
 * component of the core module that a C compiler puts out.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define HOST(name) __attribute__((import_module("millstream:module/host@1.0.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define TRANSFORM "millstream:module/transform@1.0.0#"

/* --- Shapes of the canonical ABI: a list or string is a pointer and a length; a variant begins with its case. --- */

typedef struct { const void *at; u32 len; } list;
typedef struct { list name, kind; u8 has_default; list default_; u8 required; list doc; } param;
typedef struct { list name, summary, params, outputs; } info;
typedef struct { list name, value; } setting;
typedef struct { u8 is_error; list error; } configured;
typedef struct { u32 index; list reason; } reject;

enum { UNCHANGED = 0, KEEP = 1, REWRITE = 2 };

typedef struct {
    u8 is_error;
    union {
        struct {
            u8 verdict;
            list keep_or_counts; /* the bitmap of KEEP, the counts of REWRITE */
            list records;        /* of REWRITE */
            list rejects, routes;
        };
        list error;
    };
} processed;

HOST("log") void host_log(u32 level, const char *text, u32 len);
HOST("count") void host_count(const char *name, u32 len, u64 by);

#define TEXT(text) ((list){text, sizeof(text) - 1})

/* --- Memory: what one call needs lies behind the static data, and all of it is free after the call. --- */

extern u8 __heap_base;
static u8 *heap;

static void *allocate(u32 size, u32 align) {
    if (!heap) heap = &__heap_base;
    u32 at = ((u32)heap + align - 1) & -align;
    u32 end = at + size, pages = __builtin_wasm_memory_size(0);
    if (end < at) __builtin_trap();
    u32 wanted = (end >> 16) + 1;
    if (wanted > pages && __builtin_wasm_memory_grow(0, wanted - pages) == (u32)-1) __builtin_trap();
    heap = (u8 *)end;
    return (void *)at;
}

static void copy(u8 *to, const u8 *from, u32 len) {
    for (u32 i = 0; i < len; i++) to[i] = from[i];
}

EXPORT("cabi_realloc") void *reallocate(const u8 *old, u32 old_size, u32 align, u32 size) {
    u8 *fresh = allocate(size, align);
    copy(fresh, old, old_size < size ? old_size : size);
    return fresh;
}

static void free_all(void) { heap = &__heap_base; }
EXPORT("cabi_post_" TRANSFORM "describe") void after_describe(void *result) { free_all(); }
EXPORT("cabi_post_" TRANSFORM "configure") void after_configure(void *result) { free_all(); }
EXPORT("cabi_post_" TRANSFORM "process") void after_process(void *result) { free_all(); }

/* --- describe and configure --- */

static const char *const MODES[] = {"unchanged", "keep-even", "drop-all", "upper", "double",
                                    "stamp",     "reject-odd", "report",  "fail",  "trap"};
enum { M_UNCHANGED, M_KEEP_EVEN, M_DROP_ALL, M_UPPER, M_DOUBLE, M_STAMP, M_REJECT_ODD, M_REPORT, M_FAIL, M_TRAP, MODE_COUNT };
static u32 mode;
static u8 topic[256];
static u32 topic_len;

static const param PARAMS[] = {{
    TEXT("mode"), TEXT("unchanged|keep-even|drop-all|upper|double|stamp|reject-odd|report|fail|trap"),
    0, {0, 0}, 1, TEXT("What becomes of the records."),
}};
static const info INFO = {TEXT("conformance"), TEXT("Does what its mode says."), {PARAMS, 1}, {0, 0}};

EXPORT(TRANSFORM "describe") const info *describe(void) { return &INFO; }

static int is(list text, const char *word) {
    const u8 *at = text.at;
    u32 i = 0;
    for (; i < text.len && word[i]; i++)
        if (at[i] != (u8)word[i]) return 0;
    return i == text.len && !word[i];
}

static configured *refused(list why) {
    configured *result = allocate(sizeof *result, 4);
    result->is_error = why.len != 0;
    result->error = why;
    return result;
}

EXPORT(TRANSFORM "configure")
configured *configure(const u8 *topic_at, u32 len, u32 on_fetch, const setting *settings, u32 setting_count) {
    if (setting_count != 1 || !is(settings[0].name, "mode")) return refused(TEXT("set the parameter mode, and no other"));
    topic_len = len < sizeof topic ? len : sizeof topic;
    copy(topic, topic_at, topic_len);
    for (mode = 0; mode < MODE_COUNT; mode++)
        if (is(settings[0].value, MODES[mode])) return refused((list){0, 0});
    return refused(TEXT("there is no such mode"));
}

/* --- Records: length, attributes, timestamp delta, offset delta, key, value, headers; all numbers zigzag varints. --- */

typedef struct { const u8 *at, *end; int bad; } reader;

static s64 varint(reader *in) {
    u64 value = 0;
    for (u32 shift = 0; in->at < in->end && shift < 64; shift += 7) {
        u8 byte = *in->at++;
        value |= (u64)(byte & 0x7f) << shift;
        if (byte < 0x80) return (s64)(value >> 1) ^ -(s64)(value & 1);
    }
    in->bad = 1;
    return 0;
}

static u8 *put_varint(u8 *out, s64 number) {
    u64 value = ((u64)number << 1) ^ (u64)(number >> 63);
    for (; value >= 0x80; value >>= 7) *out++ = (u8)value | 0x80;
    *out++ = (u8)value;
    return out;
}

/* Where a length-prefixed part ends, and where it begins; null has the length -1 and no bytes. */
static const u8 *part(reader *in, u32 *len) {
    s64 found = varint(in);
    *len = found < 0 ? 0 : (u32)found;
    const u8 *at = in->at;
    if (found > in->end - in->at) in->bad = 1;
    else in->at += *len;
    return at;
}

typedef struct {
    const u8 *at, *end;     /* the whole record */
    const u8 *after_times;  /* from the key on */
    const u8 *value;
    u32 value_len;
} record;

static int next(reader *in, record *found) {
    found->at = in->at;
    s64 len = varint(in);
    if (in->bad || len < 1 || len > in->end - in->at) return 0;
    reader body = {in->at + 1, in->at + len, 0}; /* behind the attributes */
    found->end = in->at = body.end;
    varint(&body);
    varint(&body);
    found->after_times = body.at;
    u32 key_len;
    part(&body, &key_len);
    found->value = part(&body, &found->value_len);
    return !body.bad;
}

/* --- process --- */

/* What the record becomes, once, at `out`; the timestamp is `append_time` in mode stamp. */
static u8 *put(u8 *out, const record *from, s64 timestamp_delta) {
    u32 len = from->end - from->at;
    if (mode != M_STAMP) {
        copy(out, from->at, len);
        if (mode == M_UPPER)
            for (u8 *at = out + (from->value - from->at), *end = at + from->value_len; at < end; at++)
                if (*at >= 'a' && *at <= 'z') *at -= 32;
        return out + len;
    }
    u8 times[16], *end = times;
    *end++ = 0; /* attributes */
    end = put_varint(end, timestamp_delta);
    end = put_varint(end, 0); /* an offset delta that comes back means nothing */
    u32 times_len = end - times, rest_len = from->end - from->after_times;
    out = put_varint(out, times_len + rest_len);
    copy(out, times, times_len);
    copy(out + times_len, from->after_times, rest_len);
    return out + times_len + rest_len;
}

/* A record with another timestamp is longer by no more than this. */
#define GROWTH 20

static int rewrite(processed *result, reader in, u32 count, s64 timestamp_delta) {
    u32 copies = mode == M_DOUBLE ? 2 : 1, len = in.end - in.at;
    u32 *counts = allocate(count * sizeof *counts, 4);
    u8 *records = allocate(copies * (len + count * GROWTH), 1), *out = records;
    for (u32 i = 0; i < count; i++) {
        record found;
        if (!next(&in, &found)) return 0;
        counts[i] = copies;
        for (u32 n = 0; n < copies; n++) out = put(out, &found, timestamp_delta);
    }
    result->verdict = REWRITE;
    result->keep_or_counts = (list){counts, count};
    result->records = (list){records, out - records};
    return 1;
}

static void keep(processed *result, u32 count, u8 bits) {
    u32 len = (count + 7) / 8;
    u8 *bitmap = allocate(len, 1);
    for (u32 i = 0; i < len; i++) bitmap[i] = bits;
    if (count % 8) bitmap[len - 1] &= (1 << count % 8) - 1;
    result->verdict = KEEP;
    result->keep_or_counts = (list){bitmap, len};
}

static void reject_odd(processed *result, u32 count) {
    reject *rejects = allocate(count / 2 * sizeof *rejects, 4);
    for (u32 i = 0; i < count / 2; i++) rejects[i] = (reject){2 * i + 1, TEXT("odd")};
    result->rejects = (list){rejects, count / 2};
}

EXPORT(TRANSFORM "process")
processed *process(u32 partition, u32 has_first_offset, u64 first_offset, s64 append_time, s64 base_timestamp, u32 count,
                   const u8 *records, u32 records_len) {
    processed *result = allocate(sizeof *result, 4);
    *result = (processed){.verdict = UNCHANGED};
    reader in = {records, records + records_len, 0};
    int ok = 1;
    switch (mode) {
    case M_KEEP_EVEN: keep(result, count, 0x55); break;
    case M_DROP_ALL: keep(result, count, 0); break;
    case M_UPPER:
    case M_DOUBLE:
    case M_STAMP: ok = rewrite(result, in, count, append_time - base_timestamp); break;
    case M_REJECT_ODD: reject_odd(result, count); break;
    case M_REPORT:
        host_log(2, (const char *)topic, topic_len);
        host_count("records", 7, count);
        break;
    case M_FAIL: ok = 0; break;
    case M_TRAP: __builtin_trap();
    }
    if (!ok) *result = (processed){.is_error = 1, .error = mode == M_FAIL ? TEXT("told to fail") : TEXT("the batch is malformed")};
    return result;
}
