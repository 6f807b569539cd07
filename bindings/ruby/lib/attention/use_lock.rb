# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

module Attention
  # Shared by the calls that use an object, exclusive for one that changes or frees it. Threads that a
  # fork left behind in the parent count no more.
  class UseLock
    def initialize
      @mutex = Mutex.new
      @left = ConditionVariable.new
      @users = []
      @changers = [] # the first of them is alone, or will be when the users have left
    end

    # Runs the block beside others that use the object.
    def share(&block)
      hold(@users, block) do
        @left.wait(@mutex) while @changers.any?(&:alive?)
        @users << Thread.current
      end
    end

    # Runs the block when nobody else uses the object; who comes meanwhile waits.
    def alone(&block)
      hold(@changers, block) do
        @changers << Thread.current
        @left.wait(@mutex) while @users.any?(&:alive?) || @changers.find(&:alive?) != Thread.current
      end
    end

    private

    # No exception of another thread (Thread#raise, Timeout) comes between a call and its end.
    def hold(places, block, &enter)
      Thread.handle_interrupt(Object => :never) do
        @mutex.synchronize(&enter)
        begin
          block.call
        ensure
          @mutex.synchronize do
            places.delete_at(places.index(Thread.current))
            @left.broadcast
          end
        end
      end
    end
  end
  private_constant :UseLock
end
