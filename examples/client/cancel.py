"""Take requests back. Cancelling is a wish: what runs already may finish, and is billed then."""

import falbatch

handles = [falbatch.submit("fal-ai/veo3.1", arguments={"prompt": f"waves, take {number}"}) for number in range(12)]
for handle in handles:
    handle.cancel()
print("asked to cancel", len(handles))
last = handles[-1].status()
print("the last one is", type(last).__name__, getattr(last, "error_type", None))
