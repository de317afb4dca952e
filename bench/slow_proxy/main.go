// A proxy on loopback between a client and an S3 server. It delays each request and counts requests and bytes.
// Its first output line is its URL, as JSON. It stops when its standard input is closed.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var requests, bytes atomic.Int64

type countingBody struct{ io.ReadCloser }

func (b countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	bytes.Add(int64(n))
	return n, err
}

// Large copies keep the proxy itself from being the bottleneck.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) }

func main() {
	target := flag.String("target", "", "URL of the server, as http://host:port")
	latency := flag.Duration("latency", 0, "wait before each request goes on")
	flag.Parse()
	server, err := url.Parse(*target)
	if err != nil {
		log.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = server.Scheme, server.Host
			r.Out.Host = r.In.Host // part of the signature
		},
		ModifyResponse: func(r *http.Response) error {
			r.Body = countingBody{r.Body}
			return nil
		},
		Transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: 256,
			ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10,
		},
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 256<<10) }}},
	}
	delayed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		time.Sleep(*latency)
		proxy.ServeHTTP(w, r)
	})
	counts := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]int64{"requests": requests.Load(), "bytes": bytes.Load()})
	})
	addresses := map[string]string{"proxy": serve(delayed), "counts": serve(counts)}
	json.NewEncoder(os.Stdout).Encode(addresses)
	io.Copy(io.Discard, os.Stdin)
}

func serve(handler http.Handler) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, handler)) }()
	return "http://" + listener.Addr().String()
}
