# Keeps one PostgreSQL server for the process that holds the other end of standard input, and ends with it: at the end
# of the input, however it came about, the server is stopped and its directory removed.
#
#   keeper.sh BINARIES FOLDER     makes its directory in FOLDER
#
# Each line that comes in is a command, and each is answered by one line: "ok ..." or "error ...".

# Only the end of the input ends this. A signal to a whole group of processes, or an answer that nobody reads, must not:
# the server would stay.
trap '' HUP INT TERM PIPE
umask 077
binaries=$1
directory=$(mktemp -d "$2/millstream-postgres-XXXXXX") || { echo "error no directory can be made in $2"; exit 1; }
data=$directory/data
log=$directory/log
server=
exec 2>>"$log"
export HOME="$directory" LC_ALL=C

fail() {
    echo "error $1: $(tail -n 6 "$log" | tr '\n' ' ')"
}

# Text is sorted by the rules of a language, as in most databases of the world, where this PostgreSQL offers them.
initialise() {
    set -- --pgdata "$data" --username millstream --auth trust --encoding UTF8 --no-sync
    "$binaries/initdb" "$@" --locale C --locale-provider icu --icu-locale en-US >>"$log" && return
    rm -rf "$data"
    "$binaries/initdb" "$@" --no-locale >>"$log"
}

# A certificate for 127.0.0.1, which `localhost` is not, and the authority that it comes from.
certify() {
    cd "$directory" || return
    printf 'subjectAltName=IP:127.0.0.1\n' >server.ext
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt &&
        openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr &&
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext \
            -out server.crt &&
        cp server.key server.crt "$data"
}

# The lock file's first line is the server's process, and one line says when it takes connections.
ready() {
    [ "$(sed -n 1p "$data/postmaster.pid" 2>&1)" = "$server" ] && grep -q '^ready' "$data/postmaster.pid"
}

start() {
    "$binaries/postgres" -D "$data" -p "$1" </dev/null >>"$log" 2>&1 &
    server=$!
    until ready; do
        if ! kill -0 "$server"; then
            server=
            fail "the server has ended"
            return
        fi
        sleep 0.02
    done
    echo "ok $server"
}

stop() {
    kill -"$1" "$server" && wait "$server"
    server=
}

while read -r command argument; do
    case $command in
    directory) echo "ok $directory" ;;
    initialise) if initialise; then echo ok; else fail initdb; fi ;;
    certify) if certify >>"$log" 2>&1; then echo ok; else fail openssl; fi ;;
    setting) printf '%s\n' "$argument" >>"$data/postgresql.conf" && echo ok ;;
    access) printf '%s\n' "$argument" >>"$directory/pg_hba.conf" && echo ok ;;
    start) start "$argument" ;;
    stop) stop "$argument" && echo ok ;;
    *) echo "error $command is no command" ;;
    esac
done

[ -z "$server" ] || stop QUIT
rm -rf "$directory"
