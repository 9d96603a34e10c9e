#!/bin/sh
# Start redis, a warm worker of Celery and one of RQ, and have each do a task; needs redis-server, celery[redis], rq, pandas.
set -eu
cd "$(dirname "$0")"
place=$(mktemp -d)
redis-server --port 0 --unixsocket "$place/redis" --save '' --dir "$place" >"$place/redis.log" &
started=$!
trap 'kill $started; wait; rm -r "$place"' EXIT
while [ ! -S "$place/redis" ]; do sleep 0.1; done
export CELERY_BROKER_URL="redis+socket://$place/redis" CELERY_RESULT_BACKEND="redis+socket://$place/redis"
export RQ_REDIS_URL="unix://$place/redis"

libcriu-py snapshot -o "$place/celery" --exit fast --learn '-A tasks worker --pool solo -Q nothing' --learn-until 4s -m celery
libcriu-py run "$place/celery" -- -A tasks worker --without-mingle -c 2 &
started="$! $started"
python -c 'import tasks; print("Celery:", tasks.total.delay(10).get(timeout=60))'

libcriu-py snapshot -o "$place/rq" --exit fast --preload pandas --learn 'worker nothing' --learn-until 2s rq
libcriu-py run "$place/rq" -- worker &
started="$! $started"
python -c '
import os, redis, rq, time
job = rq.Queue(connection=redis.Redis.from_url(os.environ["RQ_REDIS_URL"])).enqueue("math.fsum", [1, 2])
while job.return_value(refresh=True) is None:
    time.sleep(0.05)
print("RQ:", job.return_value())'
