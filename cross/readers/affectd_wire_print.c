/* Prints the frames on standard input as JSON lines, and the number of invalid frames on standard error.
 *
 *     cc -O2 -o affectd_wire_print affectd_wire_print.c
 *     stty -F /dev/ttyUSB0 raw -echo 115200 && ./affectd_wire_print < /dev/ttyUSB0
 */
#define AFFECTD_WIRE_BUFFER 1024
#include "affectd_wire.h"

#include <stdio.h>

static const char *const EXPRESSIONS[] = {
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
};

static void print_scaled(const char *name, int value, double scale, int digits) {
    if (value == AFFECTD_WIRE_UNKNOWN) {
        printf("\"%s\":null", name);
    } else {
        printf("\"%s\":%.*f", name, digits, value / scale);
    }
}

static void print_estimate(const affectd_wire_estimate *e) {
    printf("{\"seq\":%lu,\"t\":%.3f,\"paused\":%s,", (unsigned long)e->seq, e->t_ms / 1000.0, e->paused ? "true" : "false");
    print_scaled("valence", e->valence, 10000, 4);
    putchar(',');
    print_scaled("arousal", e->arousal, 10000, 4);
    putchar(',');
    print_scaled("confidence", e->confidence, 10000, 4);
    printf(",\"modalities\":[%s%s%s],", e->from_face ? "\"face\"" : "", e->from_face && e->from_voice ? "," : "",
           e->from_voice ? "\"voice\"" : "");
    if (e->face) {
        printf("\"face\":{\"id\":%u,\"box\":[%.4f,%.4f,%.4f,%.4f],\"score\":%.2f},", e->face_id, e->face_x / 10000.0,
               e->face_y / 10000.0, e->face_w / 10000.0, e->face_h / 10000.0, e->face_score / 100.0);
    } else {
        printf("\"face\":null,");
    }
    if (e->voice) {
        printf("\"voice\":{\"active\":%s,", e->voice_active ? "true" : "false");
        print_scaled("level_db", e->voice_level, 10, 1);
        printf("},");
    } else {
        printf("\"voice\":null,");
    }
    if (e->expression != AFFECTD_WIRE_UNKNOWN_EXPRESSION) {
        printf("\"expression\":{\"%s\":%.2f},", EXPRESSIONS[e->expression], e->expression_percent / 100.0);
    } else {
        printf("\"expression\":null,");
    }
    if (e->latency_ms != AFFECTD_WIRE_UNKNOWN_LATENCY) {
        printf("\"latency_ms\":%u}\n", e->latency_ms);
    } else {
        printf("\"latency_ms\":null}\n");
    }
    fflush(stdout);
}

int main(void) {
    static affectd_wire_reader reader;
    affectd_wire_estimate estimate;
    unsigned long invalid = 0;
    int byte;
    while ((byte = getchar()) != EOF) {
        switch (affectd_wire_push(&reader, (uint8_t)byte, &estimate)) {
        case AFFECTD_WIRE_ESTIMATE:
            print_estimate(&estimate);
            break;
        case AFFECTD_WIRE_TEXT:
            printf("%s\n", reader.text);
            fflush(stdout);
            break;
        case AFFECTD_WIRE_TOO_LONG:
        case AFFECTD_WIRE_INVALID:
            invalid++;
            break;
        case AFFECTD_WIRE_NOTHING:
            break;
        }
    }
    fprintf(stderr, "%lu invalid frames\n", invalid);
    return 0;
}
