// A baseline for `cargo xtask bench handover`: client-go's leader election as its documentation shows it (15/10/2 s,
// ReleaseOnCancel) before a minimal pipeline, which lists and watches pods and publishes one record for each status to
// Kafka. Not transactional and remembering nothing, which is in its favour. Takes the arguments of `pod-monitor run`
// that it needs.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

type options struct {
	selector, namespace, kafka, topic, lease, identity, listen string
}

func parse() options {
	var o options
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	flags.StringVar(&o.selector, "selector", "", "label selector of pods")
	flags.StringVar(&o.namespace, "namespace", "", "namespace of pods and Lease")
	flags.StringVar(&o.kafka, "kafka", "", "bootstrap server")
	flags.StringVar(&o.topic, "events-topic", "", "topic")
	flags.StringVar(&o.lease, "lease-name", "", "the Lease's name")
	flags.StringVar(&o.identity, "identity", "", "this process")
	flags.StringVar(&o.listen, "listen", "", "address of /readyz")
	// ExitOnError: it does not return with an error. The first argument is `run`.
	_ = flags.Parse(os.Args[2:])
	return o
}

type pipeline struct {
	options
	pods     kubernetes.Interface
	producer *kgo.Client
}

// Tells every pod's status, until the context ends.
func (p *pipeline) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.follow(ctx); err != nil && ctx.Err() == nil {
			log.Printf("begin anew: %v", err)
		}
	}
}

func (p *pipeline) follow(ctx context.Context) error {
	pods := p.pods.CoreV1().Pods(p.namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: p.selector})
	if err != nil {
		return err
	}
	for i := range list.Items {
		p.tell(ctx, &list.Items[i])
	}
	watch, err := pods.Watch(ctx, metav1.ListOptions{LabelSelector: p.selector, ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		if pod, ok := event.Object.(*corev1.Pod); ok {
			p.tell(ctx, pod)
		}
	}
	return nil
}

func (p *pipeline) tell(ctx context.Context, pod *corev1.Pod) {
	event, err := json.Marshal(map[string]any{"pod_uid": pod.UID, "event_type": "status", "phase": pod.Status.Phase})
	if err != nil {
		log.Fatal(err)
	}
	p.producer.Produce(ctx, &kgo.Record{Topic: p.topic, Key: []byte(pod.Name), Value: event}, nil)
}

func main() {
	o := parse()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		log.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	producer, err := kgo.NewClient(kgo.SeedBrokers(o.kafka), kgo.ProducerLinger(0), kgo.DefaultProduceTopic(o.topic))
	if err != nil {
		log.Fatal(err)
	}
	// Connected ahead, as a standby of ours is.
	if err := producer.Ping(context.Background()); err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	go func() { log.Fatal(http.ListenAndServe(o.listen, nil)) }()
	p := &pipeline{options: o, pods: client, producer: producer}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: o.lease, Namespace: o.namespace},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: o.identity},
	}
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: p.run,
			OnStoppedLeading: func() { log.Printf("stopped leading") },
		},
	})
}
