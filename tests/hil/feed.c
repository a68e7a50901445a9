// Plays video and audio into the bench's virtual camera and microphone:
//
//     feed video DEVICE FOURCC WIDTH HEIGHT RATE FILE
//     feed audio PCM RATE FILE
//     feed both DEVICE FOURCC WIDTH HEIGHT RATE FILE PCM RATE FILE
//
// RATE is in frames or samples per second. For video, CLAIMED:SENT makes a camera that claims another rate than it sends.
// Video FILEs are JPEG frames or raw frames, one after the other; audio FILEs are mono 16-bit samples. Both repeat for ever. With
// `both`, they start together and follow the sound card's clock: a frame is sent when its sample is heard.
#include <alsa/asoundlib.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct file {
    const uint8_t *bytes;
    size_t size;
};

struct frame {
    const uint8_t *bytes;
    size_t size;
};

struct video {
    int fd;
    double rate;
    struct frame *frames;
    size_t count;
};

static void die(const char *what) {
    fprintf(stderr, "feed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct file map(const char *path) {
    struct stat info;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &info) < 0) die(path);
    void *bytes = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) die(path);
    return (struct file){bytes, info.st_size};
}

static struct video open_video(char **argument) {
    const char *fourcc = argument[1];
    const char *shown = strchr(argument[4], ':');
    struct video video = {open(argument[0], O_RDWR), atof(shown ? shown + 1 : argument[4]), NULL, 0};
    if (video.fd < 0) die(argument[0]);
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    format.fmt.pix.width = atoi(argument[2]);
    format.fmt.pix.height = atoi(argument[3]);
    format.fmt.pix.pixelformat = v4l2_fourcc(fourcc[0], fourcc[1], fourcc[2], fourcc[3]);
    format.fmt.pix.field = V4L2_FIELD_NONE;
    format.fmt.pix.sizeimage = format.fmt.pix.width * format.fmt.pix.height * 2;
    if (ioctl(video.fd, VIDIOC_S_FMT, &format) < 0) die("VIDIOC_S_FMT");
    struct v4l2_streamparm rate = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    rate.parm.output.timeperframe = (struct v4l2_fract){1, (uint32_t)atof(argument[4])};
    ioctl(video.fd, VIDIOC_S_PARM, &rate);

    // The driver's size is rounded up to whole pages, so it is computed here.
    size_t size = (size_t)format.fmt.pix.width * format.fmt.pix.height;
    if (strcmp(fourcc, "YUYV") == 0) size *= 2;
    if (strcmp(fourcc, "NV12") == 0) size += size / 2;

    struct file file = map(argument[5]);
    int jpeg = strcmp(fourcc, "MJPG") == 0;
    size_t start = 0;
    video.frames = calloc(100000, sizeof *video.frames);
    while (start < file.size && video.count < 100000) {
        size_t end = start + size;
        if (jpeg) {
            end = start + 2;
            while (end + 2 < file.size && memcmp(file.bytes + end, "\xff\xd8\xff", 3) != 0) end++;
            if (end + 2 >= file.size) end = file.size;
        }
        if (end > file.size) break;
        video.frames[video.count++] = (struct frame){file.bytes + start, end - start};
        start = end;
    }
    if (video.count == 0) die("no frames");
    return video;
}

static void show(const struct video *video, size_t number) {
    const struct frame *frame = &video->frames[number % video->count];
    if (write(video->fd, frame->bytes, frame->size) < 0) die("write");
}

static void play_video(const struct video *video) {
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (size_t number = 0;; number++) {
        show(video, number);
        next.tv_nsec += (long)(1e9 / video->rate);
        while (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

// Plays audio, and the frames that belong to it if `video` is not NULL.
static void play_audio(char **argument, const struct video *video) {
    snd_pcm_t *pcm;
    unsigned rate = atoi(argument[1]);
    if (snd_pcm_open(&pcm, argument[0], SND_PCM_STREAM_PLAYBACK, 0) < 0) die(argument[0]);
    if (snd_pcm_set_params(pcm, SND_PCM_FORMAT_S16_LE, SND_PCM_ACCESS_RW_INTERLEAVED, 1, rate, 1, 200000) < 0)
        die("snd_pcm_set_params");
    struct file file = map(argument[2]);
    const int16_t *samples = (const int16_t *)file.bytes;
    size_t count = file.size / 2, at = 0, part = rate / 100;
    uint64_t written = 0, frames = 0;
    for (;;) {
        size_t left = count - at < part ? count - at : part;
        snd_pcm_sframes_t done = snd_pcm_writei(pcm, samples + at, left);
        if (done < 0 && snd_pcm_recover(pcm, done, 1) < 0) die("snd_pcm_writei");
        if (done <= 0) continue;
        at = (at + done) % count;
        written += done;
        snd_pcm_sframes_t ahead = 0;
        if (video && snd_pcm_delay(pcm, &ahead) == 0) {
            int64_t heard = (int64_t)written - ahead;
            while ((int64_t)(frames * rate / video->rate) <= heard) show(video, frames++);
        }
    }
}

int main(int count, char **argument) {
    if (count == 8 && strcmp(argument[1], "video") == 0) {
        struct video video = open_video(argument + 2);
        play_video(&video);
    } else if (count == 5 && strcmp(argument[1], "audio") == 0) {
        play_audio(argument + 2, NULL);
    } else if (count == 11 && strcmp(argument[1], "both") == 0) {
        struct video video = open_video(argument + 2);
        play_audio(argument + 8, &video);
    }
    fprintf(stderr, "usage: feed video DEVICE FOURCC WIDTH HEIGHT RATE FILE\n"
                    "       feed audio PCM RATE FILE\n"
                    "       feed both DEVICE FOURCC WIDTH HEIGHT RATE FILE PCM RATE FILE\n");
    return 2;
}
