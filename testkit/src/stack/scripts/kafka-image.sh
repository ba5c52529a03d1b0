#!/bin/sh
# What the scripts of the image apache/kafka (docker/resources/common-scripts of Kafka's sources: run, configureDefaults,
# configure, launch) do with the variables of a pod: Kafka's own KafkaDockerWrapper makes a configuration of them.
set -eu
export CLUSTER_ID="${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}"
java=/opt/java/bin/java libs='/opt/kafka/libs/*'
said=$("$java" -cp "$libs" kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
  --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) ||
  case "$said" in *"already formatted"*) ;; *) echo "$said"; exit 1 ;; esac
# shellcheck disable=SC2086 # several flags
exec "$java" ${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} -cp "$libs" kafka.Kafka /opt/kafka/config/server.properties
