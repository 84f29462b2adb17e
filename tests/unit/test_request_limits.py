"""How hard a server is pressed."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from openai_server import MODEL, OpenAIServer

from robolift.annotators.messages import Question
from robolift.annotators.transports.limits import RateLimit, backoff_s, retry_after_s
from robolift.annotators.transports.openai import OpenAITransport


def test_sixty_a_minute_go_out_a_second_apart():
    now, waits = [100.0], []
    limit = RateLimit(60, sleep=waits.append, clock=lambda: now[0])
    for _ in range(3):
        limit.acquire()
    # Three ask at the same moment: the second and third are told to wait for their own places.
    assert waits == [1.0, 2.0]
    now[0] = 102.5
    limit.acquire()
    assert waits == [1.0, 2.0, 0.5]


def test_time_without_questions_is_not_saved_up():
    now, waits = [0.0], []
    limit = RateLimit(30, sleep=waits.append, clock=lambda: now[0])
    limit.acquire()
    now[0] = 600.0
    limit.acquire()
    limit.acquire()
    assert waits == [2.0]


def test_no_limit_never_waits():
    limit = RateLimit(0, sleep=lambda _: pytest.fail("waited"))
    for _ in range(1000):
        limit.acquire()


def test_several_threads_share_one_limit():
    limit = RateLimit(60_000 / 10)  # one every 10 ms
    moments, lock = [], threading.Lock()

    def ask():
        for _ in range(5):
            limit.acquire()
            with lock:
                moments.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Question k is due k * 10 ms after the start, and a loaded machine only makes it later.
    assert all(moment - start >= 0.01 * k - 0.001 for k, moment in enumerate(sorted(moments)))
    assert len(moments) == 20


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [(1, 0, 1.0), (2, 0, 2.0), (3, 0, 4.0), (7, 0, 60.0), (20, 0, 60.0), (1, 0.5, 0.75), (3, 0.999, 4 * 0.5005)],
)
def test_waits_double_up_to_a_minute(failures, jitter, expected):
    assert backoff_s(failures, jitter=jitter) == pytest.approx(expected)


def test_what_the_server_asks_for_is_kept_to():
    assert backoff_s(5, jitter=0.9, retry_after_s=7.0) == 7.0


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("7") == 7.0
    assert retry_after_s("0.5") == 0.5
    assert retry_after_s("-3") == 0.0
    assert retry_after_s(None) is None
    assert retry_after_s("soon") is None
    later = retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert 25 < later <= 30
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize("zone", ["", " -0000"])
def test_a_date_without_a_zone_is_taken_for_utc(zone):
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < retry_after_s(later.strftime("%a, %d %b %Y %H:%M:%S") + zone) <= 30
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00" + zone) == 0.0


def test_questions_go_out_at_the_asked_rate():
    question = Question(parts=("How far?",), max_tokens=20)
    with OpenAIServer("500:0", "good") as server:  # tries again count
        slow = OpenAITransport(model=MODEL, endpoint=server.url, workers=4, requests_per_minute=1200)
        start = time.monotonic()
        slow.ask([question] * 4)
        slow.close()
        assert len(server.requests) == 5
        assert server.requests[-1].at_s - start > 0.19  # four gaps of 50 ms
