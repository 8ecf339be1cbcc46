-- Every table of Hindsight. Run when a warehouse is made, and when its version (store/warehouse.py) is older: creates what
-- is missing, changes nothing that is there.
-- Each fact carries when it was true and when it was known; joins and features use when it was known.
-- No primary keys on the wide tables (an index triples the file): writes replace whole windows or append behind a
-- watermark inside one transaction, and asset checks ask whether anything stands twice.

create table if not exists warehouse_version (version integer not null);

-- Market ----------------------------------------------------------------------------------------------------------

create table if not exists candles (
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    open_time timestamptz not null,      -- when true: first instant, included
    open double not null, high double not null, low double not null, close double not null,
    volume double not null,              -- base asset; 0 is a quiet candle, which is known
    revision integer not null,           -- 0 as first delivered; this row is the newest
    recorded_at timestamptz not null     -- when known: close_time, or the instant of the correction
);

create table if not exists candle_revisions (    -- what `candles` held before a correction
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    open_time timestamptz not null,
    open double not null, high double not null, low double not null, close double not null, volume double not null,
    revision integer not null,
    recorded_at timestamptz not null,    -- current from here, included
    superseded_at timestamptz not null   -- to here, excluded
);

create table if not exists gaps (        -- candles that nobody delivered
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    start_time timestamptz not null, end_time timestamptz not null, candles bigint not null,
    known_at timestamptz not null        -- close_time of the candle that ended the gap
);

create table if not exists refused_candles (
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    open_time timestamptz, reason varchar not null, found varchar not null, refused_at timestamptz not null
);

create table if not exists indicators (
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    open_time timestamptz not null,
    known_at timestamptz not null,       -- close_time, or the instant of the correction that changed the values
    sma_10 double, sma_20 double, sma_50 double, ema_12 double, ema_26 double,
    macd double, macd_signal double, macd_hist double, rsi_14 double, atr_14 double,
    bb_upper double, bb_middle double, bb_lower double, stoch_k double, stoch_d double, adx_14 double,
    obv_change double, volume_sma_20 double
);

create table if not exists pivots (
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    level tinyint not null check (level between 1 and 5),
    side varchar not null check (side in ('high', 'low')),
    pivot_type varchar not null,         -- L2H = level 2, high
    pivot_time timestamptz not null,     -- when true: open time of the extreme candle
    price double not null, strength double not null,
    confirmed_at timestamptz not null,   -- when known
    candles_left integer not null, candles_right integer not null,
    warmup boolean not null, after_gap boolean not null, rule_version tinyint not null
);

create table if not exists pivot_states (        -- what the streaming rule carries over; one per stream and month
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    since timestamptz not null,          -- open time of the first candle seen
    as_of timestamptz not null,          -- every candle that opened before this has been seen
    state blob not null
);

create table if not exists order_book (  -- one row a second; a second without a usable book has none
    venue varchar not null, symbol varchar not null,
    second timestamptz not null,         -- when true: first instant, included
    known_at timestamptz not null,       -- its end; the row has seen nothing later
    price double not null,               -- mid, quote currency
    spread float,                        -- best ask - best bid; 0 or less where venues overlap; null: unknown
    bucket_size double not null, anchor double not null,         -- anchor = floor(price / bucket_size) * bucket_size
    amounts float[40] not null,          -- US dollars in [anchor - 20 sizes, anchor + 20 sizes); null where not reached
    imbalance float,                     -- (bid - ask) / (bid + ask) within 5 sizes of price; its own mean over 1 s
    imbalance_5 float, imbalance_15 float, imbalance_60 float,   -- means over so many seconds, those with data
    snapshots integer not null,          -- books in the second; 0 where older ones were carried forward
    age_ms integer not null,             -- of the newest book used, at known_at
    venues varchar[] not null            -- whose books were added up
);

alter table order_book add column if not exists spread float;    -- homes older than version 3

-- The book beside each pivot confirmed in [since, before): the newest row known at an instant, up to 5 s old, nulls where
-- there is none. A query and no columns of `pivots`, so that no pivot waits for a book, or differs between a recorded and
-- a backfilled stretch. Rows are known at whole seconds: five candidates joined by equality cost a twentieth of an as-of
-- join, and the amounts of all other rows are left alone.
create or replace macro pivot_books(since, before) as table
with confirmed as (
  select venue, symbol, timeframe, pivot_type, rule_version, pivot_time, confirmed_at
  from pivots
  where confirmed_at >= since and confirmed_at < before),
candidates as (
  select distinct venue, symbol, instant, date_trunc('second', instant) - to_seconds(unnest(range(5))) as known_at
  from (select venue, symbol, unnest([pivot_time, confirmed_at]) as instant from confirmed)),
books as (
  select candidates.venue, candidates.symbol, instant, max_by({
    'imbalance': imbalance, 'imbalance_60': imbalance_60,
    'bid_usd': if(list_count(amounts[1:20]) = 20, list_sum(amounts[1:20]), null),
    'ask_usd': if(list_count(amounts[21:40]) = 20, list_sum(amounts[21:40]), null),
    'known_at': order_book.known_at}, order_book.known_at) as book
  from candidates
  join order_book
    on order_book.venue = candidates.venue
   and order_book.symbol = candidates.symbol
   and order_book.known_at = candidates.known_at
  group by candidates.venue, candidates.symbol, instant)
select confirmed.*,
       at_pivot.book.imbalance as imbalance_at_pivot, at_pivot.book.imbalance_60 as imbalance_60_at_pivot,
       at_pivot.book.bid_usd as bid_usd_at_pivot, at_pivot.book.ask_usd as ask_usd_at_pivot,
       at_pivot.book.known_at as book_known_at_pivot,
       confirming.book.imbalance as imbalance_at_confirmation,
       confirming.book.imbalance_60 as imbalance_60_at_confirmation,
       confirming.book.bid_usd as bid_usd_at_confirmation, confirming.book.ask_usd as ask_usd_at_confirmation,
       confirming.book.known_at as book_known_at_confirmation
from confirmed
left join books as at_pivot
  on at_pivot.venue = confirmed.venue and at_pivot.symbol = confirmed.symbol and at_pivot.instant = pivot_time
left join books as confirming
  on confirming.venue = confirmed.venue and confirming.symbol = confirmed.symbol and confirming.instant = confirmed_at;

-- Inference -------------------------------------------------------------------------------------------------------

create table if not exists inference_references (
    inference_id ubigint not null,       -- a bijection of made_at, salted by model and stream
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,        -- when known; nothing later was seen
    target_time timestamptz not null,    -- open time of the candle that the prediction aims at
    input_start timestamptz not null, input_end timestamptz not null,
    norm_params float[4] not null,       -- last close, return scale, log volume mean, log volume scale
    action varchar not null,             -- buy | sell
    action_confidence float not null,    -- probability of that action
    predicted_candle float[4] not null,  -- log return of open, high, low, close against the last close
    trend varchar not null,              -- up | sideways | down
    trend_probabilities float[3] not null,       -- down, sideways, up
    next_pivot_high float not null,      -- probability that the next confirmed L2 pivot is a high
    predicted_pivots float[8] not null,  -- log return and candles for L2L, L2H, L3L, L3H
    serving_id integer,                  -- the serving checkpoint, and what its weights say of the same frame:
    served usmallint[5],                 -- probabilities in 65,535ths: buy, down, sideways, up, next pivot a high
    extras float[],                      -- what else the model says, in the order of its Model.extras
    checkpoint_id integer not null,      -- training steps behind the weights; 0 is the initial weights
    schema_hash varchar not null,        -- the shape of its frame: see `schemas`
    digest ubigint not null,             -- xxh3 of every block of its frame
    device varchar not null, mode varchar not null
);

alter table inference_references add column if not exists serving_id integer;    -- homes older than version 3
alter table inference_references add column if not exists served usmallint[5];
alter table inference_references add column if not exists extras float[];

create table if not exists schemas (     -- what a schema hash stands for
    schema_hash varchar not null,
    shape varchar not null,              -- JSON of hindsight.inference.shape.FrameShape
    model_config varchar not null
);

create table if not exists hidden_states (       -- what a model knew when it made a reference, for models that read it
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,        -- when true
    available_at timestamptz not null,   -- when known: made_at in a backfill, live when it was stored
    state blob not null                  -- float16
);

create table if not exists refused_frames (      -- closes at which no reference could be made
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    day date not null,                   -- UTC
    block varchar not null,              -- the first one that was not whole
    need integer not null, fewest integer not null,      -- parts of it: candles, seconds; the least that were there
    closes integer not null,
    first_at timestamptz not null, last_at timestamptz not null
);

create table if not exists decisions (   -- what to do at a close, out of what all models said
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,        -- when known
    action varchar not null check (action in ('buy', 'sell', 'hold')),
    probability float,                   -- that the target candle closes above the last close; null: no model predicted
    mixture float,                       -- the gate's own, used or not
    used varchar not null,               -- mixture, equal, none, or the model that stood in for it
    models varchar[] not null, contributions float[] not null,   -- the share of each model in `probability`
    buy_threshold float not null, sell_threshold float not null, minimum_confidence float not null,
    reason varchar not null
);

create table if not exists gate_states ( -- what the gate remembers; one row per stream
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    as_of timestamptz not null,          -- the last close decided
    state blob not null                  -- hindsight.inference.gate_state
);

create table if not exists outcomes (
    inference_id ubigint not null,
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,
    kind varchar not null check (kind in ('candle', 'L2L', 'L2H', 'L3L', 'L3H')),
    status varchar not null check (status in ('settled', 'unusable')),
    reason varchar,                      -- why unusable
    true_at timestamptz not null,        -- when true: open time of the target candle, or pivot_time
    settled_at timestamptz not null,     -- when known
    log_return float,                    -- to the target's close, or to the pivot's price
    candles integer not null,            -- from made_at to the target
    is_next boolean not null,            -- for L2: the first of both sides to be confirmed
    is_correct boolean,                  -- direction of the candle, side of the next pivot
    log_loss float,                      -- of that direction or side
    regression_loss float                -- Huber, of the candle or of the pivot's vector
);

create table if not exists trend_validations (
    inference_id ubigint not null,
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,
    status varchar not null check (status in ('validated', 'expired', 'unusable')),
    reason varchar,
    settled_at timestamptz not null,     -- when known
    side varchar, start_time timestamptz, end_time timestamptz,
    slope double, intercept double, price_change double, time_duration double,   -- price/s, price, price, s
    predicted_trend varchar not null, actual_trend varchar,
    is_correct boolean, log_loss float,
    priority varchar check (priority in ('normal', 'high')),
    signal varchar check (signal in ('positive', 'corrective'))
);

-- Training --------------------------------------------------------------------------------------------------------

create table if not exists training_steps (
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    step integer not null,               -- 1, 2, …; also the checkpoint that it leaves
    trigger varchar not null check (trigger in ('candle', 'drift', 'pivot')),
    event_time timestamptz not null,     -- known at
    settled ubigint[] not null,          -- newly settled references, each once per trigger, corrective first
    replayed ubigint[] not null,         -- drawn by priority, the high ones first
    replayed_high integer not null,
    weight_normal float not null, weight_high float not null,    -- importance of a normal and of a high draw
    seed ubigint not null,
    loss float not null, loss_action float not null, loss_candle float not null,
    loss_trend float not null,           -- 0 where none was asked
    loss_pivot float not null,
    loss_value float,                    -- of the worths of positions; 0 where the model has none
    checkpoint_before integer not null, checkpoint_after integer not null,
    schema_hash varchar not null, hyperparameters varchar not null,      -- JSON
    device varchar not null, seconds float not null
);

alter table training_steps add column if not exists loss_value float;    -- homes older than version 3

create table if not exists experiences ( -- what the position of a reference came to; 0 is short, 1 flat, 2 long
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    made_at timestamptz not null,        -- when the position was taken
    inference_id ubigint not null,
    next_id ubigint,                     -- the reference at the next close that was due; null where none was made
    previous tinyint not null, action tinyint not null,          -- held before, and from made_at on
    log_return float not null,           -- of the close, from made_at to settled_at
    reward float not null,               -- share of the equity, net of fee and half_spread
    td_error float,                      -- in return scales, by the values as they were predicted; null without a next
    settled_at timestamptz not null      -- when known
);

create table if not exists checkpoints (
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    checkpoint_id integer not null, event_time timestamptz not null, schema_hash varchar not null,
    file varchar not null,               -- below HINDSIGHT_HOME/checkpoints
    metric varchar not null,             -- what the model's checkpoints are ranked by, with its unit
    direction varchar not null check (direction in ('lower', 'higher')),    -- which is better
    metric_value float,                  -- of what was settled at the last `score_window` closes; null before there is
    scored integer not null,             -- how many answers that were
    is_best boolean not null, is_latest boolean not null, is_pinned boolean not null, is_serving boolean not null,
    is_snapshot boolean not null,        -- kept to bound the replay of steps
    evicted_at timestamptz               -- the file is gone since; event time. The row stays where it has served
);

alter table checkpoints add column if not exists metric varchar default 'log loss';    -- homes older than version 3
alter table checkpoints add column if not exists direction varchar default 'lower';

create table if not exists promotions (  -- each look at whether the learning weights are to serve, and each word by hand
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    event_time timestamptz not null,     -- known at; what serves changes with the next close
    outcome varchar not null check (outcome in ('first', 'promoted', 'kept', 'by hand', 'rolled back')),
    serving_before integer, serving_after integer not null,      -- checkpoint ids
    challenger integer not null, schema_hash varchar not null,
    confidence float, references_compared integer, blocks integer,       -- the evidence; null where there is none
    loss_champion double, loss_challenger double,
    difference double, difference_low double, difference_high double     -- challenger - champion, and its interval
);

create table if not exists drifts (      -- where the prequential loss of a model rose, and what was done about it
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    event_time timestamptz not null,     -- known at
    detector varchar not null check (detector in ('adwin', 'page_hinkley')),
    loss_before double not null, loss_after double not null,     -- mean log loss of the action
    steps integer not null               -- training steps that it triggered
);

create table if not exists learned_until (       -- watermark of steps 2 to 4 of DESIGN §3 per model and stream
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    since timestamptz not null,          -- the first close
    until timestamptz not null           -- every close at or before this has been predicted, settled and trained on
);

create table if not exists model_failures (      -- lessons and decisions that raised: a row per model, stream and error
    model varchar not null,              -- `mixture` where it was the decision
    venue varchar not null, symbol varchar not null, timeframe varchar not null,
    error varchar not null,              -- the class of the exception
    message varchar not null,            -- of the last time
    times integer not null,
    first_at timestamptz not null, last_at timestamptz not null,         -- by the clock of whoever caught it
    ended_at timestamptz                 -- it has done what was due since; null while it fails
);

create table if not exists scores (      -- prequential sums per UTC day of made_at: the models and their baselines
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    day date not null, target varchar not null, predictor varchar not null,
    settled integer not null, correct integer, log_loss_sum double, regression_loss_sum double
);

create table if not exists timings (     -- how long after a close the live path had come how far; backfills leave none
    venue varchar not null, symbol varchar not null, timeframe varchar not null, model varchar not null,
    close_time timestamptz not null,
    stage varchar not null check (stage in ('stored', 'predicted', 'trained')),
    reached_at timestamptz not null      -- by the venue's clock, as the transaction with the fact was about to end
);

create table if not exists sweeps (      -- one model over the same history with many settings, each from nothing
    sweep_id varchar not null,           -- follows from all that was asked for
    model varchar not null, venue varchar not null, symbol varchar not null, timeframe varchar not null,
    since timestamptz not null, until timestamptz not null,
    place integer not null,              -- by loss, 1 is the best
    settings varchar not null,           -- JSON: what was varied
    references_judged integer not null, steps integer not null,
    loss double not null,                -- prequential: mean log loss of action, trend and next pivot, added up
    loss_late double not null,           -- of the second half of them
    difference double not null, difference_low double, difference_high double,   -- to the best, and its 95 % interval
    weekly_loss double[] not null,
    device varchar not null, seconds float not null      -- of the whole sweep
);
