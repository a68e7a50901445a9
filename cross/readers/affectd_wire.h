/* Reads the frames that affectd writes with serial:...?wire=frame. C99 and C++11, no allocation, no library: for anything
 * from an Arduino up. The format is described in cross/wire.md. Licence: MIT or Apache-2.0, as affectd.
 *
 *     static affectd_wire_reader reader;                    // all zeroes is the right beginning
 *     affectd_wire_estimate estimate;
 *     while (Serial1.available()) {
 *         if (affectd_wire_push(&reader, Serial1.read(), &estimate) == AFFECTD_WIRE_ESTIMATE
 *             && estimate.valence != AFFECTD_WIRE_UNKNOWN) {
 *             analogWrite(LED, estimate.valence > 0 ? estimate.valence / 40 : 0);
 *         }
 *     }
 */
#ifndef AFFECTD_WIRE_H
#define AFFECTD_WIRE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes kept of a frame. 40 holds any estimate; answers to commands are up to 1024 bytes long. */
#ifndef AFFECTD_WIRE_BUFFER
#define AFFECTD_WIRE_BUFFER 40
#endif

#define AFFECTD_WIRE_VERSION 1
#define AFFECTD_WIRE_KIND_ESTIMATE 1
#define AFFECTD_WIRE_KIND_TEXT 2

/* An unknown valence, arousal, confidence or level, and an unknown latency and expression. */
#define AFFECTD_WIRE_UNKNOWN INT16_MIN
#define AFFECTD_WIRE_UNKNOWN_LATENCY UINT16_MAX
#define AFFECTD_WIRE_UNKNOWN_EXPRESSION UINT8_MAX

typedef struct {
    uint32_t seq;          /* counts up by one: a gap is what was lost or left out */
    uint32_t t_ms;         /* on the source's clock; begins again after 49.7 days */
    int16_t valence;       /* -10000 unpleasant ... 10000 pleasant */
    int16_t arousal;       /* -10000 calm ... 10000 excited */
    int16_t confidence;    /* 0 ... 10000 */
    bool from_face;        /* what valence and arousal rest on */
    bool from_voice;
    bool face;             /* a face was seen: the fields that begin with face_ and expression hold */
    bool voice;            /* there is sound: the fields that begin with voice_ hold */
    bool voice_active;     /* somebody spoke */
    int16_t voice_level;   /* tenths of a dB of full scale */
    uint16_t face_id;      /* stays with a person */
    uint16_t face_x;       /* ten thousandths of the picture */
    uint16_t face_y;
    uint16_t face_w;
    uint16_t face_h;
    uint8_t face_score;    /* percent */
    uint8_t expression;    /* neutral, happiness, surprise, sadness, anger, disgust, fear, contempt */
    uint8_t expression_percent;
    uint16_t latency_ms;   /* from capture to sending */
} affectd_wire_estimate;

typedef enum {
    AFFECTD_WIRE_NOTHING,  /* no frame has ended */
    AFFECTD_WIRE_ESTIMATE, /* one is in *estimate */
    AFFECTD_WIRE_TEXT,     /* an answer is in reader->text, text_length bytes and a zero, until the next push */
    AFFECTD_WIRE_TOO_LONG, /* longer than AFFECTD_WIRE_BUFFER: an answer, or noise */
    AFFECTD_WIRE_BROKEN    /* damaged on the way */
} affectd_wire_result;

typedef struct {
    uint8_t code[AFFECTD_WIRE_BUFFER + 1];
    uint16_t length;
    bool in_step; /* a delimiter has been seen */
    const char *text;
    uint16_t text_length;
} affectd_wire_reader;

static inline uint16_t affectd_wire_crc16(const uint8_t *bytes, uint16_t length) {
    uint16_t crc = 0xFFFF;
    for (uint16_t i = 0; i < length; i++) {
        crc = (uint16_t)(crc ^ ((uint16_t)bytes[i] << 8));
        for (uint8_t bit = 0; bit < 8; bit++) {
            crc = (uint16_t)((crc & 0x8000) ? (uint16_t)(crc << 1) ^ 0x1021 : crc << 1);
        }
    }
    return crc;
}

/* Undoes COBS in place; false if the bytes are no code. What comes out is never longer than what went in. */
static inline bool affectd_wire_unstuff(uint8_t *bytes, uint16_t *length) {
    uint16_t in = 0, out = 0;
    while (in < *length) {
        const uint8_t run = bytes[in++];
        if (run == 0 || run - 1 > *length - in) {
            return false;
        }
        for (uint8_t i = 1; i < run; i++) {
            bytes[out++] = bytes[in++];
        }
        if (run < 0xFF && in < *length) {
            bytes[out++] = 0;
        }
    }
    *length = out;
    return true;
}

static inline uint16_t affectd_wire_u16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | (uint16_t)bytes[1] << 8);
}

static inline uint32_t affectd_wire_u32(const uint8_t *bytes) {
    return affectd_wire_u16(bytes) | (uint32_t)affectd_wire_u16(bytes + 2) << 16;
}

/* Two's complement, without relying on how the compiler converts. */
static inline int16_t affectd_wire_i16(const uint8_t *bytes) {
    const uint16_t value = affectd_wire_u16(bytes);
    return value < 0x8000 ? (int16_t)value : (int16_t)((int32_t)value - 0x10000);
}

static inline bool affectd_wire_within(int16_t value, int16_t low) {
    return value == AFFECTD_WIRE_UNKNOWN || (value >= low && value <= 10000);
}

/* Takes a record of 32 bytes apart; false if it holds what no record does. */
static inline bool affectd_wire_record(const uint8_t *b, affectd_wire_estimate *e) {
    const uint8_t flags = b[14];
    e->seq = affectd_wire_u32(b);
    e->t_ms = affectd_wire_u32(b + 4);
    e->valence = affectd_wire_i16(b + 8);
    e->arousal = affectd_wire_i16(b + 10);
    e->confidence = affectd_wire_i16(b + 12);
    e->from_face = flags & 1;
    e->from_voice = flags >> 1 & 1;
    e->face = flags >> 2 & 1;
    e->voice = flags >> 3 & 1;
    e->voice_active = flags >> 4 & 1;
    e->face_score = b[15];
    e->face_x = affectd_wire_u16(b + 16);
    e->face_y = affectd_wire_u16(b + 18);
    e->face_w = affectd_wire_u16(b + 20);
    e->face_h = affectd_wire_u16(b + 22);
    e->face_id = affectd_wire_u16(b + 24);
    e->voice_level = affectd_wire_i16(b + 26);
    e->expression = b[28];
    e->expression_percent = b[29];
    e->latency_ms = affectd_wire_u16(b + 30);
    if (flags >> 5 || !affectd_wire_within(e->valence, -10000) || !affectd_wire_within(e->arousal, -10000)
        || !affectd_wire_within(e->confidence, 0) || !affectd_wire_within(e->voice_level, -10000)) {
        return false;
    }
    if (!e->voice && (e->voice_active || e->voice_level != AFFECTD_WIRE_UNKNOWN)) {
        return false;
    }
    if (e->expression == AFFECTD_WIRE_UNKNOWN_EXPRESSION ? e->expression_percent != UINT8_MAX
                                                         : e->expression > 7 || e->expression_percent > 100) {
        return false;
    }
    if (e->face) {
        return e->face_score <= 100 && e->face_x <= 10000 && e->face_y <= 10000 && e->face_w <= 10000
            && e->face_h <= 10000;
    }
    return e->face_score == UINT8_MAX && e->face_x == UINT16_MAX && e->face_y == UINT16_MAX && e->face_w == UINT16_MAX
        && e->face_h == UINT16_MAX && e->face_id == UINT16_MAX && e->expression == AFFECTD_WIRE_UNKNOWN_EXPRESSION;
}

/* What stood between two delimiters. */
static inline affectd_wire_result affectd_wire_decode(affectd_wire_reader *reader, affectd_wire_estimate *estimate) {
    uint8_t *bytes = reader->code;
    uint16_t length = reader->length;
    if (length > AFFECTD_WIRE_BUFFER) {
        return AFFECTD_WIRE_TOO_LONG;
    }
    if (!affectd_wire_unstuff(bytes, &length) || length < 4) {
        return AFFECTD_WIRE_BROKEN;
    }
    length = (uint16_t)(length - 2);
    if (affectd_wire_crc16(bytes, length) != affectd_wire_u16(bytes + length) || bytes[0] != AFFECTD_WIRE_VERSION) {
        return AFFECTD_WIRE_BROKEN;
    }
    if (bytes[1] == AFFECTD_WIRE_KIND_ESTIMATE && length == 34) {
        return affectd_wire_record(bytes + 2, estimate) ? AFFECTD_WIRE_ESTIMATE : AFFECTD_WIRE_BROKEN;
    }
    if (bytes[1] == AFFECTD_WIRE_KIND_TEXT) {
        bytes[length] = 0; /* Where the checksum was. */
        reader->text = (const char *)bytes + 2;
        reader->text_length = (uint16_t)(length - 2);
        return AFFECTD_WIRE_TEXT;
    }
    return AFFECTD_WIRE_BROKEN;
}

/* Takes in the next byte. *estimate is good only where AFFECTD_WIRE_ESTIMATE comes back. */
static inline affectd_wire_result affectd_wire_push(affectd_wire_reader *reader, uint8_t byte,
                                                    affectd_wire_estimate *estimate) {
    affectd_wire_result result = AFFECTD_WIRE_NOTHING;
    if (byte != 0) {
        /* One byte too many is enough to know that there were too many. */
        if (reader->length <= AFFECTD_WIRE_BUFFER) {
            reader->code[reader->length++] = byte;
        }
        return AFFECTD_WIRE_NOTHING;
    }
    if (reader->length > 0) {
        result = affectd_wire_decode(reader, estimate);
        /* What comes before the first delimiter may be half a frame, and is nobody's fault. */
        if (!reader->in_step && (result == AFFECTD_WIRE_BROKEN || result == AFFECTD_WIRE_TOO_LONG)) {
            result = AFFECTD_WIRE_NOTHING;
        }
    }
    reader->in_step = true;
    reader->length = 0;
    return result;
}

#endif
