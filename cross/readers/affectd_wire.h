/* Reads the frames that affectd writes with serial:...?wire=frame. C99 and C++11, without allocation or libraries, for
 * Arduino boards and larger machines. cross/wire.md documents the format. Licence: MIT or Apache-2.0, as affectd.
 *
 *     static affectd_wire_reader reader;                    // must start as all zeroes
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

/* The size of the frame buffer in bytes. 40 is enough for estimates. Answers to commands have up to 1024 bytes. */
#ifndef AFFECTD_WIRE_BUFFER
#define AFFECTD_WIRE_BUFFER 40
#endif

#define AFFECTD_WIRE_VERSION 1
#define AFFECTD_WIRE_KIND_ESTIMATE 1
#define AFFECTD_WIRE_KIND_TEXT 2

/* The values of unknown fields: valence, arousal, confidence and level; latency; expression. */
#define AFFECTD_WIRE_UNKNOWN INT16_MIN
#define AFFECTD_WIRE_UNKNOWN_LATENCY UINT16_MAX
#define AFFECTD_WIRE_UNKNOWN_EXPRESSION UINT8_MAX

typedef struct {
    uint32_t seq;          /* increases by one; a gap means lost or skipped estimates */
    uint32_t t_ms;         /* milliseconds on the source's clock; wraps after 49.7 days */
    int16_t valence;       /* -10000 unpleasant ... 10000 pleasant */
    int16_t arousal;       /* -10000 calm ... 10000 excited */
    int16_t confidence;    /* 0 ... 10000 */
    bool from_face;        /* valence and arousal use the face */
    bool from_voice;       /* valence and arousal use the voice */
    bool face;             /* a face is visible: the fields face_* and expression* are valid */
    bool voice;            /* there is audio: the fields voice_* are valid */
    bool voice_active;     /* a person is speaking */
    bool paused;           /* the camera and the microphone are closed on request */
    int16_t voice_level;   /* tenths of a dB relative to full scale */
    uint16_t face_id;      /* the same while a face is tracked */
    uint16_t face_x;       /* ten-thousandths of the width of the camera frame */
    uint16_t face_y;       /* ten-thousandths of the height */
    uint16_t face_w;
    uint16_t face_h;
    uint8_t face_score;    /* percent */
    uint8_t expression;    /* the most likely: 0 neutral, 1 happiness, 2 surprise, 3 sadness, 4 anger, 5 disgust, 6 fear,
                            * 7 contempt */
    uint8_t expression_percent; /* its probability */
    uint16_t latency_ms;   /* milliseconds from capture to sending */
} affectd_wire_estimate;

typedef enum {
    AFFECTD_WIRE_NOTHING,  /* no frame is complete */
    AFFECTD_WIRE_ESTIMATE, /* *estimate contains an estimate */
    AFFECTD_WIRE_TEXT,     /* reader->text contains an answer of text_length bytes and a zero, until the next push */
    AFFECTD_WIRE_TOO_LONG, /* longer than AFFECTD_WIRE_BUFFER: an answer or noise */
    AFFECTD_WIRE_INVALID   /* damaged */
} affectd_wire_result;

typedef struct {
    uint8_t code[AFFECTD_WIRE_BUFFER + 1];
    uint16_t length;
    bool synchronized; /* a delimiter has been read */
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

/* Decodes COBS in place; false if the bytes are not valid COBS. The decoded bytes are never longer. */
static inline bool affectd_wire_decode_cobs(uint8_t *bytes, uint16_t *length) {
    uint16_t in = 0, out = 0;
    while (in < *length) {
        const uint8_t run = bytes[in++];
        if (run == 0 || (uint16_t)(run - 1) > (uint16_t)(*length - in)) {
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

/* Two's complement, independent of how the compiler converts to signed integers. */
static inline int16_t affectd_wire_i16(const uint8_t *bytes) {
    const uint16_t value = affectd_wire_u16(bytes);
    return value < 0x8000 ? (int16_t)value : (int16_t)((int32_t)value - 0x10000);
}

static inline bool affectd_wire_in_range(int16_t value, int16_t low) {
    return value == AFFECTD_WIRE_UNKNOWN || (value >= low && value <= 10000);
}

/* Decodes a record of 32 bytes; false if a field has a value that no record has. */
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
    e->paused = flags >> 5 & 1;
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
    if (flags >> 6 || !affectd_wire_in_range(e->valence, -10000) || !affectd_wire_in_range(e->arousal, -10000)
        || !affectd_wire_in_range(e->confidence, 0) || !affectd_wire_in_range(e->voice_level, -10000)) {
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

/* Decodes the bytes between two delimiters. */
static inline affectd_wire_result affectd_wire_decode(affectd_wire_reader *reader, affectd_wire_estimate *estimate) {
    uint8_t *bytes = reader->code;
    uint16_t length = reader->length;
    if (length > AFFECTD_WIRE_BUFFER) {
        return AFFECTD_WIRE_TOO_LONG;
    }
    if (!affectd_wire_decode_cobs(bytes, &length) || length < 4) {
        return AFFECTD_WIRE_INVALID;
    }
    length = (uint16_t)(length - 2);
    if (affectd_wire_crc16(bytes, length) != affectd_wire_u16(bytes + length) || bytes[0] != AFFECTD_WIRE_VERSION) {
        return AFFECTD_WIRE_INVALID;
    }
    if (bytes[1] == AFFECTD_WIRE_KIND_ESTIMATE && length == 34) {
        return affectd_wire_record(bytes + 2, estimate) ? AFFECTD_WIRE_ESTIMATE : AFFECTD_WIRE_INVALID;
    }
    if (bytes[1] == AFFECTD_WIRE_KIND_TEXT) {
        bytes[length] = 0; /* In place of the checksum. */
        reader->text = (const char *)bytes + 2;
        reader->text_length = (uint16_t)(length - 2);
        return AFFECTD_WIRE_TEXT;
    }
    return AFFECTD_WIRE_INVALID;
}

/* Reads the next byte. *estimate is valid only if the result is AFFECTD_WIRE_ESTIMATE. */
static inline affectd_wire_result affectd_wire_push(affectd_wire_reader *reader, uint8_t byte,
                                                    affectd_wire_estimate *estimate) {
    affectd_wire_result result = AFFECTD_WIRE_NOTHING;
    if (byte != 0) {
        /* One byte more than the limit is kept, to see that the frame is too long. */
        if (reader->length <= AFFECTD_WIRE_BUFFER) {
            reader->code[reader->length++] = byte;
        }
        return AFFECTD_WIRE_NOTHING;
    }
    if (reader->length > 0) {
        result = affectd_wire_decode(reader, estimate);
        /* The bytes before the first delimiter may be half a frame, which is not an error. */
        if (!reader->synchronized && (result == AFFECTD_WIRE_INVALID || result == AFFECTD_WIRE_TOO_LONG)) {
            result = AFFECTD_WIRE_NOTHING;
        }
    }
    reader->synchronized = true;
    reader->length = 0;
    return result;
}

#endif
