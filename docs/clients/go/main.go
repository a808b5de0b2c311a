// Command client says a recording to the gateway until it is stored: go run . URL FILE
//
// FILE is headerless PCM16, 16 kHz, mono. It prints the receipt, with the text if the URL ends with
// ?results=text. It ends with 0 only if all of the file is stored.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

const attempts = 5

// Message has the fields of every message of the gateway that this client reads.
type Message struct {
	Status        string `json:"status"`
	CorrelationID string `json:"correlation_id"`
	Limits        struct {
		MaxChunkBytes        int     `json:"max_chunk_bytes"`
		MaxAudioBytes        int     `json:"max_audio_bytes"`
		MaxMessagesPerSecond float64 `json:"max_messages_per_second"`
	} `json:"limits"`
	AudioBytes int    `json:"audio_bytes"`
	SHA256     string `json:"sha256"`
	EndedBy    string `json:"ended_by"`
	Retryable  bool   `json:"retryable"`
	Text       string `json:"text"`
	raw        map[string]any
}

// refusal is the answer to a handshake that was refused.
type refusal struct {
	status int
	after  time.Duration
	body   string
}

func (r *refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.status, r.body) }

func (r *refusal) forGood() bool { return r.status != 429 && r.status != 503 }

var errTooLong = errors.New("the recording is longer than the gateway takes")

// connect opens the WebSocket; where it is refused it reads why.
func connect(ctx context.Context, address string) (*websocket.Conn, error) {
	header := http.Header{}
	if key := os.Getenv("SPEECH_API_KEY"); key != "" { // what an edge before the gateway asks for
		header.Set("X-API-Key", key)
	}
	conn, response, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		Subprotocols: []string{"speech-ingress.v1"},
		HTTPHeader:   header,
	})
	if err == nil {
		return conn, nil
	}
	if response == nil || response.StatusCode == http.StatusSwitchingProtocols {
		return nil, err
	}
	body, _ := io.ReadAll(response.Body)
	seconds, _ := strconv.ParseFloat(response.Header.Get("Retry-After"), 64)
	return nil, &refusal{response.StatusCode, time.Duration(seconds * float64(time.Second)), string(body)}
}

// send says the audio within the limits, then done. The gateway may end it first: then it stops.
func send(ctx context.Context, conn *websocket.Conn, pcm []byte, greeting Message) {
	chunk := min(3200, greeting.Limits.MaxChunkBytes) // 100 ms
	pause := time.Duration(float64(time.Second) / greeting.Limits.MaxMessagesPerSecond)
	for start := 0; start < len(pcm); start += chunk {
		part := pcm[start:min(start+chunk, len(pcm))]
		if conn.Write(ctx, websocket.MessageBinary, part) != nil {
			return
		}
		time.Sleep(pause)
	}
	_ = conn.Write(ctx, websocket.MessageText, []byte(`{"event": "done"}`))
}

// speak says one utterance, and returns the receipt with its text, or the error.
func speak(ctx context.Context, address string, pcm []byte) (Message, error) {
	conn, err := connect(ctx, address)
	if err != nil {
		return Message{}, err
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var receipt *Message
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			if receipt != nil {
				return *receipt, nil
			}
			return Message{}, fmt.Errorf("the connection ended without a final message: %w", err)
		}
		var message Message
		if err := json.Unmarshal(data, &message); err != nil {
			return Message{}, err
		}
		_ = json.Unmarshal(data, &message.raw)
		switch message.Status { // what is not known is passed over
		case "connected":
			if len(pcm) > message.Limits.MaxAudioBytes {
				return Message{}, errTooLong
			}
			go send(ctx, conn, pcm, message)
		case "accepted":
			receipt = &message
		case "recognized":
			receipt.raw["text"] = message.Text
		case "error":
			if receipt == nil {
				return message, nil
			}
		}
	}
}

// unstored returns what of the audio the receipt is not about: nothing, unless it was cut off.
func unstored(receipt Message, pcm []byte) ([]byte, error) {
	stored := pcm[:min(receipt.AudioBytes, len(pcm))]
	sum := sha256.Sum256(stored)
	if len(stored) != receipt.AudioBytes || hex.EncodeToString(sum[:]) != receipt.SHA256 {
		return nil, errors.New("the receipt is not about the audio that was sent")
	}
	return pcm[len(stored):], nil
}

// named gives every attempt the same name, and has nothing stored of one that breaks (close code
// 1006 in a browser). So whoever reads counts one utterance, however often it was said.
func named(address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	query := parsed.Query()
	query.Set("client_ref", fmt.Sprintf("%d-%x", time.Now().UnixNano(), rand.Uint64()))
	query.Set("on_disconnect", "discard")
	parsed.RawQuery = query.Encode()
	return parsed.String(), nil
}

// speakUntilStored tries again where that helps, with pauses that grow and vary.
func speakUntilStored(ctx context.Context, address string, pcm []byte) (Message, error) {
	address, err := named(address)
	if err != nil {
		return Message{}, err
	}
	for attempt := range attempts {
		pause := time.Duration(math.Pow(2, float64(attempt)) * (0.5 + rand.Float64()) * float64(time.Second))
		final, err := speak(ctx, address, pcm)
		var refused *refusal
		switch {
		case errors.As(err, &refused) && refused.forGood():
			return Message{}, fmt.Errorf("refused for good: %s", refused.body)
		case errors.Is(err, errTooLong):
			return Message{}, err
		case err != nil:
			fmt.Fprintf(os.Stderr, "attempt %d: %v\n", attempt+1, err)
			if refused != nil {
				pause = max(pause, refused.after)
			}
		case final.Status == "accepted":
			return final, nil
		case !final.Retryable:
			line, _ := json.Marshal(final.raw)
			return Message{}, errors.New(string(line))
		}
		time.Sleep(pause)
	}
	return Message{}, errors.New("gave up: the gateway did not take the utterance")
}

func run(address, file string) error {
	pcm, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	receipt, err := speakUntilStored(context.Background(), address, pcm)
	if err != nil {
		return err
	}
	rest, err := unstored(receipt, pcm)
	if err != nil {
		return err
	}
	line, _ := json.Marshal(receipt.raw)
	fmt.Println(string(line))
	if len(rest) > 0 { // say it in a new connection: it becomes an utterance of its own
		return fmt.Errorf("cut off by %s: %d bytes are not stored", receipt.EndedBy, len(rest))
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: client URL FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
