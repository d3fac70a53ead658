/* job.c - the life of a job's memory. */
#include "server/work/job.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "server/work/model.h"
#include "server/work/words.h"

struct job *job_create(uint8_t *body, size_t body_length, size_t image_count)
{
    if (image_count > (SIZE_MAX - sizeof(struct job)) / sizeof(struct job_image))
        return NULL;
    struct job *job = calloc(1, sizeof *job + image_count * sizeof job->images[0]);
    if (!job)
        return NULL;
    job->body = body;
    job->body_length = body_length;
    job->client_fd = -1;
    job->image_count = image_count;
    atomic_init(&job->undecoded, image_count);
    atomic_init(&job->unfinished, image_count);
    for (size_t i = 0; i < image_count; i++)
        job->images[i].job = job;
    return job;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    for (size_t i = 0; i < job->image_count; i++) {
        struct job_image *image = &job->images[i];
        free(image->pixels);
        free(image->logits);
        free(image->features);
        free(image->map);
        free(image->distances);
    }
    free(job->body);
    free(job);
}

bool job_socket_left(int fd)
{
    struct pollfd client = {.fd = fd, .events = POLLRDHUP};
    return poll(&client, 1, 0) > 0 && (client.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

bool job_client_gone(const struct job *job)
{
    return job->client_fd >= 0 && job_socket_left(job->client_fd);
}

size_t job_class_count(const struct job *job)
{
    return job->words ? job->words->count : model_class_count(job->model);
}

const char *job_class_label(const struct job *job, size_t index)
{
    return job->words ? job->words->texts[index] : vit_model_label(job->model->vit, index);
}

int64_t job_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
