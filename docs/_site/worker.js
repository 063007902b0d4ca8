// Browsers start no worker for a page that is opened from a folder (file://), and the search is one.
// There it runs in a hidden frame instead; the frame's script finds what it expects of a worker.
if (window.location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.ready = new Promise((resolve) => {
        this.resolve = resolve;
      });
      const start = () => {
        document.body.append(this.frame);
        const inner = this.frame.contentWindow;
        inner.importScripts = (...urls) =>
          urls.reduce((before, each) => before.then(() => this.load(each)), Promise.resolve());
        inner.postMessage = (data) => this.tell(data);
        this.load(url).then(this.resolve);
      };
      document.body ? start() : window.addEventListener("DOMContentLoaded", start);
    }
    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.frame.contentDocument.createElement("script");
        script.src = new URL(url, window.location.href).href;
        script.onload = resolve;
        script.onerror = reject;
        this.frame.contentDocument.body.append(script);
      });
    }
    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })),
      );
    }
    tell(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }
    terminate() {
      this.frame.remove();
    }
  };
}
