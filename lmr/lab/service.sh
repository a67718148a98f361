# Starts, stops or shows one service of a user, on the host where this runs:
#     sh -s -- start|stop|status FOLDER NAME [COMMAND...]
# A service is a shell that starts its command again whenever it ends with an error. That shell leads a
# process group, so that a stop reaches whatever the command has started.
set -eu
verb=$1 folder=$2 name=$3
shift 3
pid_file=$folder/$name.pid
log=$folder/$name.log
mark=lmr-service:$folder:$name
stop_seconds=20

# After a reboot the number in the file may be that of a stranger: the mark in its command line tells.
running() {
    [ -s "$pid_file" ] || return 1
    pid=$(cat "$pid_file")
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$mark"
}

case $verb in
start)
    if running; then
        echo already
        exit
    fi
    umask 077
    mkdir -p "$folder"
    [ ! -f "$log" ] || mv "$log" "$log.1"
    # shellcheck disable=SC2016  # the loop's own shell expands these
    setsid nohup sh -c 'until "$@"; do echo "ended with $?, starts again in 5 s"; sleep 5; done' \
        "$mark" "$@" </dev/null >"$log" 2>&1 &
    echo $! >"$pid_file"
    echo started
    ;;
stop)
    if ! running; then
        echo absent
        exit
    fi
    kill -s TERM -- "-$pid"
    waited=0
    while kill -s 0 -- "-$pid" 2>/dev/null; do
        if [ $waited -ge $stop_seconds ]; then
            kill -s KILL -- "-$pid" 2>/dev/null || true
            break
        fi
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "$pid_file"
    echo stopped
    ;;
status)
    state=absent seconds=0 restarts=0 last=
    if running; then
        state=running seconds=$(($(date +%s) - $(stat -c %Y "$pid_file")))
    fi
    if [ -f "$log" ]; then
        restarts=$(grep -c 'starts again in' "$log" || true)
        last=$(tail -n 1 "$log")
    fi
    printf '%s\n%s\n%s\n%s\n' "$state" "$seconds" "$restarts" "$last"
    ;;
esac
