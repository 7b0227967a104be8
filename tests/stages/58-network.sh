#!/usr/bin/env bash
# A server and a client in two network namespaces with a cable between them, which is pulled, and
# whose connections are reset.
# budget: server
source "$(dirname "$0")/lib.sh"

name=fastmq-$$
here=$name-a there=$name-b
remove() { ip netns del "$here"; ip netns del "$there"; } 2>/dev/null
trap remove EXIT
if ! is_there ip || ! is_there ss || ! ip netns add "$here" 2>/dev/null; then
    skip "partition and reset" "network namespaces need root, ip and ss"
    exit 0
fi
# The name of a link has 15 bytes at most.
link=fmq$$
ip netns add "$there"
ip link add "$link" netns "$here" type veth peer name "$link" netns "$there"
ip -n "$here" addr add 10.77.0.2/30 dev "$link"
ip -n "$there" addr add 10.77.0.1/30 dev "$link"
ip -n "$here" link set "$link" up
ip -n "$there" link set "$link" up
ip -n "$there" link set lo up
cargo test --locked -p fastmq --test network --no-run
export FASTMQ_TEST_NETNS=$there FASTMQ_TEST_ADDRESS=10.77.0.1 FASTMQ_TEST_LINK=$link
passes "partition and reset" ip netns exec "$here" cargo test --locked --offline -p fastmq \
    --test network -- --ignored --test-threads=1 --skip process::
